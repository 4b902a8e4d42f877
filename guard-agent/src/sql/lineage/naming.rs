//! A column of a result without a name enters, the name that the server gives it leaves (`FigureColname`).

use super::expression::EXISTS;
use crate::sql::postgres::reference::At;

/// `ARRAY_SUBLINK`, `EXPR_SUBLINK`.
const ARRAY: u64 = 7;
const SCALAR: u64 = 5;

/// The name of the column that this expression becomes.
pub fn of(at: At<'_>) -> &str {
    find(at).unwrap_or("?column?")
}

fn find(mut at: At<'_>) -> Option<&str> {
    let mut weaker = None;
    // Each step goes down in the tree.
    loop {
        let name = match at.name() {
            "ColumnRef" => at.names("fields").last().copied(),
            "FuncCall" => at.names("funcname").last().copied(),
            "A_Indirection" => match at.names("indirection").last() {
                Some(name) => Some(*name),
                None => {
                    at = at.get("arg")?;
                    continue;
                }
            },
            "TypeCast" => {
                let ty = at.get("type_name").and_then(|ty| ty.names("names").last().copied());
                weaker = weaker.or(ty);
                at = at.get("arg")?;
                continue;
            }
            "CollateClause" => {
                at = at.get("arg")?;
                continue;
            }
            "CaseExpr" => {
                weaker = weaker.or(Some("case"));
                match at.get("defresult") {
                    Some(result) => {
                        at = result;
                        continue;
                    }
                    None => None,
                }
            }
            "SubLink" => match at.number("sub_link_type") {
                EXISTS => Some("exists"),
                ARRAY => Some("array"),
                SCALAR => {
                    let mut query = at.get("subselect")?;
                    while let Some(left) = query.get("larg") {
                        query = left;
                    }
                    let target = query.list("target_list").next()?;
                    match target.text("name") {
                        "" => {
                            at = target.get("val")?;
                            continue;
                        }
                        name => Some(name),
                    }
                }
                _ => None,
            },
            "A_Expr" if at.number("kind") == 6 => Some("nullif"),
            "A_ArrayExpr" => Some("array"),
            "RowExpr" => Some("row"),
            "CoalesceExpr" => Some("coalesce"),
            "MinMaxExpr" if at.number("op") == 2 => Some("least"),
            "MinMaxExpr" => Some("greatest"),
            "GroupingFunc" => Some("grouping"),
            "XmlSerialize" => Some("xmlserialize"),
            "JsonObjectConstructor" => Some("json_object"),
            "JsonArrayConstructor" | "JsonArrayQueryConstructor" => Some("json_array"),
            "JsonObjectAgg" => Some("json_objectagg"),
            "JsonArrayAgg" => Some("json_arrayagg"),
            "JsonScalarExpr" => Some("json_scalar"),
            "JsonSerializeExpr" => Some("json_serialize"),
            "JsonParseExpr" => Some("json"),
            _ => None,
        };
        return name.or(weaker);
    }
}
