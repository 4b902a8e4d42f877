//! What a column's type says about which kinds of sensitive data it can hold.

use guard_policy::vocabulary::DataKind;

/// Type of a column, as far as it matters here. An array has the type of its elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Characters: text, varchar, bpchar, name, citext, xml, enums.
    #[default]
    Text,
    /// smallint, integer, bigint.
    Integer,
    /// numeric, real, double precision, money.
    Number,
    /// Boolean.
    Boolean,
    /// Date.
    Date,
    /// timestamp, timestamptz.
    Timestamp,
    /// time, timetz, interval.
    Duration,
    /// UUID.
    Uuid,
    /// json, jsonb, hstore, composite rows.
    Document,
    /// bytea.
    Bytes,
    /// inet: one host, as a rule.
    Inet,
    /// cidr: a network.
    Cidr,
    /// macaddr, macaddr8.
    Mac,
    /// point and other shapes.
    Shape,
    /// Not known; everything is possible.
    Unknown,
}

impl ColumnType {
    /// From the OID of a built-in type of PostgreSQL, or of an array of it (`pg_type.dat`).
    pub const fn from_oid(oid: u32) -> Self {
        match oid {
            16 | 1000 => Self::Boolean,
            17 | 1001 => Self::Bytes,
            18 | 19 | 25 | 142 | 143 | 1002 | 1003 | 1009 | 1014 | 1015 | 1042 | 1043 => Self::Text,
            20 | 21 | 23 | 26 | 1005 | 1007 | 1016 | 1028 => Self::Integer,
            700 | 701 | 790 | 791 | 1021 | 1022 | 1231 | 1700 => Self::Number,
            114 | 199 | 2249 | 2287 | 3802 | 3807 => Self::Document,
            600..=604 | 628 | 718 | 629 | 719 | 1017..=1020 | 1027 => Self::Shape,
            650 | 651 => Self::Cidr,
            869 | 1041 => Self::Inet,
            774 | 775 | 829 | 1040 => Self::Mac,
            1082 | 1182 => Self::Date,
            1114 | 1115 | 1184 | 1185 => Self::Timestamp,
            1083 | 1183 | 1186 | 1187 | 1266 | 1270 => Self::Duration,
            2950 | 2951 => Self::Uuid,
            _ => Self::Unknown,
        }
    }

    /// Whether a value of this type can be of this kind.
    pub const fn can_hold(self, kind: DataKind) -> bool {
        use DataKind as K;
        match self {
            Self::Text | Self::Document | Self::Unknown => true,
            Self::Integer => matches!(
                kind,
                K::Phone
                    | K::BirthDate
                    | K::NationalId
                    | K::Document
                    | K::PaymentCard
                    | K::BankAccount
                    | K::Income
                    | K::IpAddress
                    | K::Password
                    | K::Device
                    | K::Address
                    | K::Health
                    | K::Special
                    | K::Location
            ),
            Self::Number => matches!(
                kind,
                K::Phone
                    | K::NationalId
                    | K::PaymentCard
                    | K::BankAccount
                    | K::Income
                    | K::Location
                    | K::Document
            ),
            Self::Boolean | Self::Duration => false,
            Self::Date => matches!(kind, K::BirthDate | K::PaymentCard | K::Health),
            Self::Timestamp => matches!(kind, K::BirthDate),
            Self::Uuid => matches!(kind, K::AccessToken | K::Device | K::NationalId | K::Password),
            Self::Bytes => !matches!(kind, K::BirthDate | K::Income | K::Location),
            Self::Inet | Self::Cidr => matches!(kind, K::IpAddress),
            Self::Mac => matches!(kind, K::Device),
            Self::Shape => matches!(kind, K::Location | K::Address),
        }
    }
}
