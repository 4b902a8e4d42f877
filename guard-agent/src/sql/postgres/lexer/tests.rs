use super::*;

const RULES: Rules = Rules { standard_strings: true, ascii_names: false, max_tokens: 1000, max_depth: 8 };

fn read(text: &str, rules: Rules) -> Result<Vec<String>, Error> {
    let mut lexed = Lexed::default();
    lex(text, rules, &mut lexed)?;
    Ok(lexed.tokens.iter().map(|&token| lexed.value(token).to_owned()).collect())
}

fn tokens(text: &str) -> Vec<String> {
    read(text, RULES).unwrap()
}

#[test]
fn operators_end_where_the_server_ends_them() {
    assert_eq!(tokens("a<-1 @-1 *-+- !=-1"), ["a", "<", "-", "1", "@-", "1", "*", "-", "+", "-", "!=-", "1"]);
    assert_eq!(tokens("1+--x\n2 */*c*/3"), ["1", "+", "2", "*", "3"]);
    assert_eq!(tokens("a::b:=c=>d..e"), ["a", "::", "b", ":=", "c", "=>", "d", "..", "e"]);
}

#[test]
fn numbers_end_where_the_server_ends_them() {
    assert_eq!(tokens("1..2 1.5e+3 .5 1e 0x1F_0 1_000 $1a"), {
        ["1", "..", "2", "1.5e+3", ".5", "1", "e", "0x1F_0", "1_000", "$1", "a"]
    });
}

#[test]
fn literals_keep_their_mode_across_lines() {
    assert_eq!(tokens("'a' -- c\n 'b'"), ["ab"]);
    assert_eq!(tokens("E'a'\n'\\'b'"), ["a'b"]);
    assert_eq!(tokens("'a' /* c */\n'b'"), ["a", "b"]);
    assert_eq!(tokens("'a' 'b'"), ["a", "b"]);
    assert_eq!(tokens("$a$ $$ $b$ $a$"), [" $$ $b$ "]);
}

#[test]
fn backslashes_are_as_the_setting_has_them() {
    let off = Rules { standard_strings: false, ..RULES };
    assert_eq!(read(r"'a\' b", off), Err(Error::Invalid));
    assert_eq!(read(r"'a\'b'", off), Ok(vec!["a'b".to_owned()]));
    assert_eq!(read(r"'a\'", RULES), Ok(vec![r"a\".to_owned()]));
    assert_eq!(read(r"U&'a'", off), Err(Error::Invalid));
}

#[test]
fn what_the_server_refuses_is_refused() {
    for text in
        ["'a", "\"a", "\"\"", "/* /* */", "$$a", "(", ")", "\\", "a{", "U&\"\\00\"", "U&\"\\d800\"", "$a"]
    {
        assert_eq!(read(text, RULES), Err(Error::Invalid), "{text}");
    }
    assert_eq!(read(&"(".repeat(9), RULES), Err(Error::Cap));
    assert_eq!(read(&"a ".repeat(1001), RULES), Err(Error::Cap));
}

#[test]
fn names_are_folded_decoded_and_cut() {
    assert_eq!(tokens("ABC É a$1 \"A\"\"b\" U&\"!0041\" UESCAPE '!'"), ["abc", "É", "a$1", "A\"b", "A"]);
    assert_eq!(tokens(&"é".repeat(40)), ["é".repeat(31)]);
}
