//! Which types can carry something sensitive where nothing else says so. OIDs: PostgreSQL's `pg_type.dat`, where they
//! never change.

use crate::{
    catalog::Catalog,
    mask::rewrite::{Base, Field, ValueType},
};

/// What the values of a type can be searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// Too short, or of another nature.
    Nothing,
    /// Numbers of cards and the like.
    Number,
    /// Names of the database's own objects.
    Name,
    /// Anything.
    Text,
}

/// What values of the type with this OID can carry. Types that a database defines itself can carry anything.
pub(super) fn carries(type_oid: u32) -> Carries {
    match type_oid {
        // int8, numeric, and arrays and ranges of them.
        20 | 1700 | 1016 | 1231 | 3906 | 3926 | 4532 | 4536 => Carries::Number,
        // "char", name, their arrays; types that print names of objects: regclass, regproc, regtype, ..
        18
        | 19
        | 24
        | 1002
        | 1003
        | 1008
        | 2202..=2211
        | 3734
        | 3735
        | 3769
        | 3770
        | 4089
        | 4090
        | 4096
        | 4097
        | 4191
        | 4192 => Carries::Name,
        // bool, int2, int4, oid, tid, xid, cid, vectors of them, and arrays.
        16 | 21..=23 | 26..=30 | 1000 | 1005..=1007 | 1010..=1013 | 1028 | 5069 | 271 => Carries::Nothing,
        // float4, float8, money, and arrays.
        700 | 701 | 790 | 791 | 1021 | 1022 => Carries::Nothing,
        // Geometry.
        600..=604 | 628 | 718 | 1017..=1020 | 1027 | 629 | 719 => Carries::Nothing,
        // Dates and times, and arrays and ranges of them.
        1082
        | 1083
        | 1114
        | 1184
        | 1186
        | 1266
        | 1115
        | 1182
        | 1183
        | 1185
        | 1187
        | 1270
        | 3904
        | 3908
        | 3910
        | 3912
        | 4451
        | 4533..=4535 => Carries::Nothing,
        // Bits, void, LSNs, snapshots, lists of privileges, trees of the planner.
        1560..=1563 | 2278 | 2279 | 2970 | 3220 | 3221 | 5038 | 1033 | 1034 | 194 | 2276 => Carries::Nothing,
        _ => Carries::Text,
    }
}

/// Types within types beyond this are not followed.
const MAX_DEPTH: usize = 8;

/// The form of values of a type: built in, or as the catalog says it is made.
pub fn value_type(catalog: &Catalog, oid: u32, modifier: i32) -> ValueType {
    made_of(catalog, oid, modifier, 0)
}

fn made_of(catalog: &Catalog, oid: u32, modifier: i32, depth: usize) -> ValueType {
    let built_in = ValueType::built_in(oid, modifier);
    if !matches!(built_in.base, Base::Unknown) || depth > MAX_DEPTH {
        return built_in;
    }
    let Some(own) = catalog.type_of(oid) else { return built_in };
    match own.kind {
        'd' => made_of(catalog, own.base, modifier, depth + 1),
        'e' => ValueType::new(Base::Enum),
        'c' => {
            let fields = catalog.relation(own.relation).map(|relation| {
                let columns = relation.columns.iter().filter(|column| column.number > 0);
                columns
                    .map(|column| Field {
                        value_type: made_of(catalog, column.type_oid, column.typmod, depth + 1),
                        treatment: None,
                    })
                    .collect()
            });
            // A row of unknown fields cannot be taken apart.
            fields.map_or(built_in, |fields| ValueType::new(Base::Composite(Some(fields))))
        }
        _ if own.element != 0 && own.category == 'A' => {
            ValueType::array(made_of(catalog, own.element, modifier, depth + 1))
        }
        _ => match &*own.name {
            "citext" => ValueType::new(Base::Text),
            "hstore" => ValueType::new(Base::Hstore),
            _ => built_in,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_text_or_long_numbers_is_searched() {
        // text, varchar, bpchar, unknown, json, jsonb, xml, bytea, uuid, inet, text[], record, tsvector, a type of its own.
        for oid in [25, 1043, 1042, 705, 114, 3802, 142, 17, 2950, 869, 1009, 2249, 3614, 16_500] {
            assert_eq!(carries(oid), Carries::Text, "{oid}");
        }
        assert_eq!((carries(20), carries(1700)), (Carries::Number, Carries::Number));
        for oid in [16, 21, 23, 26, 701, 1082, 1184, 2278] {
            assert_eq!(carries(oid), Carries::Nothing, "{oid}");
        }
        assert_eq!(carries(19), Carries::Name);
    }
}
