//! TCP connections by their changes of state: for hosts on which nothing can be attached to cgroups.

/// Where the fields of the tracepoint `sock:inet_sock_set_state` are, as tracefs describes it: they moved over the
/// years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StateLayout {
    /// The socket's address, which names it while it is there.
    pub skaddr: u32,
    /// The state before.
    pub oldstate: u32,
    /// The state after.
    pub newstate: u32,
    /// Local port, host order.
    pub sport: u32,
    /// Remote port, host order.
    pub dport: u32,
    /// IP protocol.
    pub protocol: u32,
    /// Bytes of `protocol`: 1 or 2.
    pub protocol_bytes: u32,
    /// Local address, IPv4 in its IPv6 form.
    pub saddr_v6: u32,
    /// Remote address, IPv4 in its IPv6 form.
    pub daddr_v6: u32,
}

impl StateLayout {
    /// Reads `format` as tracefs has it; nothing where a field is missing.
    pub fn parse(format: &str) -> Option<Self> {
        let field = |name: &str| {
            format.lines().find_map(|line| {
                let (declared, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
                let last = declared.rsplit([' ', '*']).next()?;
                let found = last.split('[').next()?;
                let number = |key: &str| {
                    rest.split(';').find_map(|part| part.trim().strip_prefix(key)?.parse::<u32>().ok())
                };
                (found == name).then(|| Some((number("offset:")?, number("size:")?))).flatten()
            })
        };
        let (protocol, protocol_bytes) = field("protocol")?;
        Some(Self {
            skaddr: field("skaddr")?.0,
            oldstate: field("oldstate")?.0,
            newstate: field("newstate")?.0,
            sport: field("sport")?.0,
            dport: field("dport")?.0,
            protocol,
            protocol_bytes,
            saddr_v6: field("saddr_v6")?.0,
            daddr_v6: field("daddr_v6")?.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::StateLayout;

    const FORMAT: &str = "name: inet_sock_set_state\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:int oldstate;\toffset:16;\tsize:4;\tsigned:1;\n\
        \tfield:int newstate;\toffset:20;\tsize:4;\tsigned:1;\n\
        \tfield:__u16 sport;\toffset:24;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 dport;\toffset:26;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 family;\toffset:28;\tsize:2;\tsigned:0;\n\
        \tfield:__u8 protocol;\toffset:30;\tsize:1;\tsigned:0;\n\
        \tfield:__u8 saddr[4];\toffset:31;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 daddr[4];\toffset:35;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 saddr_v6[16];\toffset:39;\tsize:16;\tsigned:0;\n\
        \tfield:__u8 daddr_v6[16];\toffset:55;\tsize:16;\tsigned:0;\n\nprint fmt: \"...\"\n";

    #[test]
    fn reads_what_tracefs_says() {
        let layout = StateLayout::parse(FORMAT).expect("every field is there");
        assert_eq!((layout.skaddr, layout.oldstate, layout.newstate), (8, 16, 20));
        assert_eq!((layout.sport, layout.dport), (24, 26));
        assert_eq!((layout.protocol, layout.protocol_bytes), (30, 1));
        assert_eq!((layout.saddr_v6, layout.daddr_v6), (39, 55));
    }

    #[test]
    fn a_missing_field_is_no_layout() {
        assert_eq!(StateLayout::parse(&FORMAT.replace("skaddr", "skaddress")), None);
        assert_eq!(StateLayout::parse(&FORMAT.replace("offset:55", "offset:x")), None);
        assert_eq!(StateLayout::parse(""), None);
    }
}
