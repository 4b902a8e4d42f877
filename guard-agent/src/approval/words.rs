//! What a statement does, in words for a reviewer.

use guard_common::audit::v1::Effect;

/// One line for each effect, the ones that change something first.
pub fn in_words(effects: &[Effect]) -> Vec<String> {
    let mut lines: Vec<(bool, String)> = effects.iter().map(|effect| (reads(effect), line(effect))).collect();
    lines.sort_by_key(|(reads, _)| *reads);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn reads(effect: &Effect) -> bool {
    ["select", "show", "explain", "set", "transaction", "session"].contains(&effect.action.as_str())
}

fn line(effect: &Effect) -> String {
    let kind = effect.object_kind.replace('_', " ");
    let object = match effect.object.as_str() {
        "" | "*" => format!("some {kind}"),
        object => format!("{kind} {object}"),
    };
    let every = effect.has_where == Some(false);
    match effect.action.as_str() {
        "select" => format!("reads {object}"),
        "insert" => format!("adds rows to {object}"),
        "update" if every => format!("changes EVERY row of {object}"),
        "update" => format!("changes rows of {object}"),
        "delete" if every => format!("deletes EVERY row of {object}"),
        "delete" => format!("deletes rows of {object}"),
        "truncate" => format!("empties {object}"),
        "merge" => format!("merges rows into {object}"),
        "drop" => format!("drops {object}"),
        "create" => format!("creates {object}"),
        "alter" => format!("alters {object}"),
        "copy_in" => {
            format!("loads rows that the client sends into {object}: they are not part of what is shown")
        }
        "copy_out" => format!("copies {object} out"),
        "grant_privilege" => format!("gives privileges on {object}"),
        "revoke_privilege" => format!("takes privileges on {object}"),
        "change_role" => format!("changes {object}"),
        "execute" | "call" | "do" | "function" => format!("runs {object}, which may do anything"),
        "unreadable" => "cannot be read: it may do anything".to_owned(),
        other => format!("{} of {object}", other.replace('_', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_comes_first() {
        let effect = |action: &str, object: &str, has_where| Effect {
            action: action.to_owned(),
            object: object.to_owned(),
            object_kind: "table".to_owned(),
            has_where,
            object_schema: None,
        };
        let words = in_words(&[effect("select", "a", None), effect("delete", "public.b", Some(false))]);
        assert_eq!(words, ["deletes EVERY row of table public.b", "reads table a"]);
        assert_eq!(in_words(&[effect("drop", "*", None)]), ["drops some table"]);
    }
}
