//! Describe: asking the server for the form of a portal's rows.

/// A Describe message for the portal called `name`.
pub fn describe_portal(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 7);
    super::frame::write(&mut out, b'D', |out| {
        out.push(b'P');
        out.extend_from_slice(name);
        out.push(0);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_describe_names_its_portal() {
        assert_eq!(describe_portal(b"p"), b"D\0\0\0\x07Pp\0");
    }
}
