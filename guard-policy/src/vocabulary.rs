//! The words that statements and policies share: actions, kinds of objects, effects.
//!
//! A statement's classification leaves as [`Effect`]s; the Cedar schema names the same actions.

use std::fmt;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every word, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word as policies and records spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What is done to an object. The schema puts each into one or more groups.
    Action {
        /// Open a connection.
        Connect = "connect",
        /// Read rows.
        Select = "select",
        /// Show a plan, without running what it plans.
        Explain = "explain",
        /// Show a setting or an object's description.
        Show = "show",
        /// `COPY .. TO STDOUT`: rows in bulk to the client.
        CopyOut = "copy_out",
        /// Add rows.
        Insert = "insert",
        /// Change rows.
        Update = "update",
        /// Remove rows.
        Delete = "delete",
        /// MERGE.
        Merge = "merge",
        /// Remove all rows at once.
        Truncate = "truncate",
        /// `COPY .. FROM STDIN`.
        CopyIn = "copy_in",
        /// Take an explicit lock.
        Lock = "lock",
        /// Large objects and other writes that name no table.
        WriteObject = "write_object",
        /// Make an object.
        Create = "create",
        /// Change an object's definition.
        Alter = "alter",
        /// Remove an object.
        Drop = "drop",
        /// Comment, security label.
        Comment = "comment",
        /// Give a privilege or a membership.
        Grant = "grant_privilege",
        /// Take one away.
        Revoke = "revoke_privilege",
        /// Create, change or drop a role; change ownership.
        Role = "change_role",
        /// ALTER SYSTEM, configuration reload.
        Configure = "configure",
        /// VACUUM, ANALYZE, REINDEX, CLUSTER, CHECKPOINT, REFRESH.
        Maintain = "maintain",
        /// Cancel or end other sessions.
        Terminate = "terminate",
        /// Load code into the server: LOAD, CREATE EXTENSION, untrusted languages.
        Load = "load",
        /// Physical or logical replication, publications, slots.
        Replicate = "replicate",
        /// Read or write a file on the server's host.
        File = "file",
        /// Run a program on the server's host.
        Program = "program",
        /// Make the server open another connection: dblink, foreign servers.
        Outbound = "outbound",
        /// A function that is not known to be harmless.
        Function = "function",
        /// DO: anonymous code.
        Do = "do",
        /// CALL of a procedure.
        Call = "call",
        /// EXECUTE of a prepared statement whose text is not known.
        Execute = "execute",
        /// The statement could not be read.
        Unreadable = "unreadable",
        /// Change a setting of the session.
        Set = "set",
        /// Become another role: SET ROLE, SET SESSION AUTHORIZATION.
        Assume = "assume",
        /// BEGIN, COMMIT, ROLLBACK, savepoints.
        Transaction = "transaction",
        /// DEALLOCATE, DISCARD, LISTEN, NOTIFY, cursors, PREPARE itself.
        Session = "session",
        /// Sleep: holds a connection and its locks.
        Sleep = "sleep",
    }
}

words! {
    /// What kind of thing an effect is on.
    ObjectKind {
        /// Ordinary, partitioned, foreign or temporary table.
        Table = "table",
        /// View.
        View = "view",
        /// Materialized view.
        MaterializedView = "materialized_view",
        /// Index.
        Index = "index",
        /// Sequence.
        Sequence = "sequence",
        /// Column; the name is `table.column`.
        Column = "column",
        /// Schema.
        Schema = "schema",
        /// Database.
        Database = "database",
        /// Function, procedure, aggregate.
        Function = "function",
        /// Type or domain.
        Type = "type",
        /// Trigger, rule, policy: code attached to a table.
        Trigger = "trigger",
        /// Role or user.
        Role = "role",
        /// Extension.
        Extension = "extension",
        /// Setting.
        Setting = "setting",
        /// Tablespace.
        Tablespace = "tablespace",
        /// A file on the server's host.
        File = "file",
        /// The server as a whole.
        Server = "server",
        /// The session itself.
        Session = "session",
        /// Any other kind.
        Other = "other",
        /// Not known: could be any.
        Unknown = "unknown",
    }
}

impl ObjectKind {
    /// True for what stands in a schema: names of it without one are looked for along the search path.
    pub fn in_schema(self) -> bool {
        use ObjectKind as K;
        match self {
            K::Table
            | K::View
            | K::MaterializedView
            | K::Index
            | K::Sequence
            | K::Column
            | K::Function
            | K::Type
            | K::Trigger => true,
            K::Schema
            | K::Database
            | K::Role
            | K::Extension
            | K::Setting
            | K::Tablespace
            | K::File
            | K::Server
            | K::Session
            | K::Other
            | K::Unknown => false,
        }
    }
}

/// What an effect is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    /// Its kind.
    pub kind: ObjectKind,
    /// Schema as written; `None` where the statement names none.
    pub schema: Option<String>,
    /// Its name as the server reads it (folded, unquoted); `*` where it is not known.
    pub name: String,
}

impl Object {
    /// An object of `kind` with the name that the statement gives.
    pub fn named(kind: ObjectKind, schema: Option<&str>, name: &str) -> Self {
        Self { kind, schema: schema.map(str::to_owned), name: name.to_owned() }
    }

    /// Some object of `kind`; policies must assume any.
    pub fn any(kind: ObjectKind) -> Self {
        Self::named(kind, None, "*")
    }
}

impl fmt::Display for Object {
    /// `schema.name`, or the name alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One thing that a statement does to one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Effect {
    /// What is done.
    pub action: Action,
    /// To what.
    pub object: Object,
    /// Update, delete: there is a WHERE that is not constantly true. `None` for every other action.
    pub has_where: Option<bool>,
}

impl Effect {
    /// An effect without a WHERE to speak of.
    pub fn new(action: Action, object: Object) -> Self {
        Self { action, object, has_where: None }
    }
}

/// How well a statement was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parse {
    /// By the grammar of the server's dialect.
    Full,
    /// From its tokens, towards the dangerous side.
    Tokens,
    /// Not at all.
    None,
}

impl Parse {
    /// The word as policies and records spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Tokens => "tokens",
            Self::None => "none",
        }
    }
}

words! {
    /// What kind of sensitive data a value is.
    DataKind {
        /// Mail address.
        Email = "email",
        /// Telephone number.
        Phone = "phone",
        /// Name of a person, or a part of it.
        PersonName = "person_name",
        /// Where somebody lives: street, house, postal code, town of a person.
        Address = "address",
        /// Where somebody is: coordinates.
        Location = "location",
        /// Date of birth, age.
        BirthDate = "birth_date",
        /// National, social security, tax or insurance number of a person.
        NationalId = "national_id",
        /// Passport, identity card, driving licence, number plate.
        Document = "document",
        /// Number of a payment card, its security code, its expiry.
        PaymentCard = "payment_card",
        /// IBAN.
        Iban = "iban",
        /// Bank account that is no IBAN, routing number.
        BankAccount = "bank_account",
        /// What somebody earns or owns.
        Income = "income",
        /// Diagnosis, medication, blood group, health insurance.
        Health = "health",
        /// Origin, religion, politics, orientation, biometrics, sex: what the law protects most.
        Special = "special",
        /// IP address.
        IpAddress = "ip_address",
        /// MAC address, IMEI, advertising id: what names a device.
        Device = "device",
        /// JSON web token.
        Jwt = "jwt",
        /// Key of a cloud provider.
        CloudKey = "cloud_key",
        /// Private key.
        PrivateKey = "private_key",
        /// Password in clear, answer to a security question, PIN.
        Password = "password",
        /// Hash of a password.
        PasswordHash = "password_hash",
        /// Token or key that opens something: API keys, sessions, refresh tokens.
        AccessToken = "access_token",
        /// What a tag calls sensitive without saying of which kind.
        Tagged = "tagged",
    }
}

impl DataKind {
    /// The tags that policies know it by, beside its own name: `pii`, `contact`, `financial`, `secret`, `health`,
    /// `special`.
    pub const fn tags(self) -> &'static [&'static str] {
        match self {
            Self::Email | Self::Phone | Self::Address => &["pii", "contact"],
            Self::PersonName
            | Self::Location
            | Self::BirthDate
            | Self::NationalId
            | Self::Document
            | Self::IpAddress
            | Self::Device => &["pii"],
            Self::PaymentCard | Self::Iban | Self::BankAccount | Self::Income => &["pii", "financial"],
            Self::Health => &["pii", "health", "special"],
            Self::Special => &["pii", "special"],
            Self::Jwt
            | Self::CloudKey
            | Self::PrivateKey
            | Self::Password
            | Self::PasswordHash
            | Self::AccessToken => &["secret"],
            Self::Tagged => &[],
        }
    }
}

words! {
    /// How a sensitive value is rewritten: always to a value of the same type.
    MaskRule {
        /// Nothing of it is left.
        Full = "full",
        /// Its shape is: `j***@example.com`, the last four digits.
        Partial = "partial",
        /// A keyed hash: the same for the same value, so that it joins.
        Hash = "hash",
        /// NULL.
        Null = "null",
        /// A text that the policy names.
        Fixed = "fixed",
    }
}
