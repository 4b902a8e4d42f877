//! What is sensitive in one column passes on: to columns of views, to generated ones, along keys, to heirs.

use std::{collections::HashMap, sync::Arc};

use super::build::{Facts, Known};
use super::{Base, Catalog, Evidence, Mark, Oid, Relation, Sensitive};
use crate::sql::{
    SearchPath,
    lineage::{World, of_definition},
};

/// A column that receives what another one holds.
struct Edge {
    from: (Oid, i16),
    to: (Oid, i16),
    evidence: Evidence,
}

/// Views over views over views: more steps are not taken.
const MAX_ROUNDS: usize = 32;

/// Marks what receives from sensitive columns.
pub fn pass_on(base: Base, facts: &Facts, known: &Known<'_>) -> Base {
    let catalog =
        Catalog { base: Arc::new(base), learned: Arc::default(), names: Arc::clone(known.names), version: 0 };
    let mut edges = Vec::new();
    inherited(&catalog, facts, &mut edges);
    keys(&catalog, facts, &mut edges);
    composites(&catalog, &mut edges);
    computed(&catalog, facts, &mut edges);
    let Catalog { base, .. } = catalog;
    // Nobody else has it: the catalog was made here.
    let Some(mut base) = Arc::into_inner(base) else { return Base::default() };
    let mut by_source: HashMap<(Oid, i16), Vec<&Edge>, ahash::RandomState> = HashMap::default();
    for edge in &edges {
        by_source.entry(edge.from).or_default().push(edge);
    }
    let mut changed: Vec<(Oid, i16)> = by_source.keys().copied().collect();
    changed.sort_unstable();
    for _ in 0..MAX_ROUNDS {
        let mut next = Vec::new();
        for source in changed {
            let Some(sensitive) = sensitive(&base, source).cloned() else { continue };
            for edge in by_source.get(&source).into_iter().flatten() {
                if receive(&mut base, edge, &sensitive) {
                    next.push(edge.to);
                }
            }
        }
        if next.is_empty() {
            break;
        }
        changed = next;
    }
    base
}

fn sensitive(base: &Base, (relation, number): (Oid, i16)) -> Option<&Sensitive> {
    base.relations.get(&relation)?.by_number(number)?.sensitive()
}

/// Marks the column at the end of an edge; false where it was marked before.
fn receive(base: &mut Base, edge: &Edge, sensitive: &Sensitive) -> bool {
    let (relation, number) = edge.to;
    let Some(relation) = base.relations.get_mut(&relation) else { return false };
    let Some(column) = relation.columns.iter_mut().find(|column| column.number == number) else {
        return false;
    };
    if column.mark != Mark::None {
        return false;
    }
    column.mark = Mark::Sensitive(Box::new(Sensitive { evidence: edge.evidence, ..sensitive.clone() }));
    true
}

/// Partitions and heirs have the columns of their parents, by name; who reads the parent reads them.
fn inherited(catalog: &Catalog, facts: &Facts, edges: &mut Vec<Edge>) {
    for (child, parent) in &facts.parents {
        let (Some(child), Some(parent)) = (catalog.relation(*child), catalog.relation(*parent)) else {
            continue;
        };
        for column in &parent.columns {
            if let Some(own) = child.by_name(&column.name) {
                let (of_parent, of_child) = ((parent.oid, column.number), (child.oid, own.number));
                for (from, to) in [(of_parent, of_child), (of_child, of_parent)] {
                    edges.push(Edge { from, to, evidence: Evidence::Related });
                }
            }
        }
    }
}

/// What refers to a mail address is one, and what addresses refer to is one too. Numbers are another matter: `phone` may
/// refer to the `id` of a telephone.
fn keys(catalog: &Catalog, facts: &Facts, edges: &mut Vec<Edge>) {
    for key in &facts.keys {
        for (own, other) in &key.columns {
            let (own, other) = ((key.from, *own), (key.to, *other));
            edges.push(Edge { from: other, to: own, evidence: Evidence::Related });
            let ty = catalog.column(own.0, own.1).and_then(|column| catalog.type_of(column.type_oid));
            if ty.is_some_and(|ty| ty.category == 'S') {
                edges.push(Edge { from: own, to: other, evidence: Evidence::Related });
            }
        }
    }
}

/// A column of a composite type shows its fields.
fn composites(catalog: &Catalog, edges: &mut Vec<Edge>) {
    const MOST_STEPS: usize = 8;
    for relation in catalog.relations().filter(|relation| !relation.is_system()) {
        for column in &relation.columns {
            let mut ty = catalog.type_of(column.type_oid);
            for _ in 0..MOST_STEPS {
                let Some(inner) = ty.filter(|ty| ty.relation == 0) else { break };
                let below = if inner.element == 0 { inner.base } else { inner.element };
                ty = catalog.type_of(below);
            }
            let fields =
                ty.and_then(|ty| catalog.relation(ty.relation)).map(|fields| (fields.oid, &fields.columns));
            for (oid, field) in
                fields.into_iter().flat_map(|(oid, fields)| fields.iter().map(move |field| (oid, field)))
            {
                let (from, to) = ((oid, field.number), (relation.oid, column.number));
                edges.push(Edge { from, to, evidence: Evidence::Derived });
            }
        }
    }
}

/// Views and generated columns.
fn computed(catalog: &Catalog, facts: &Facts, edges: &mut Vec<Edge>) {
    let path = SearchPath::Schemas(Vec::new());
    let world = World { catalog, path: &path, user: "" };
    for (oid, text) in &facts.definitions {
        let Some(view) = catalog.relation(*oid) else { continue };
        let made_of = of_definition(text, &world);
        for (index, column) in view.columns.iter().enumerate() {
            let sources = made_of.columns.get(index).unwrap_or(&made_of.any);
            for source in sources.iter().filter_map(|source| source.id) {
                edges.push(Edge { from: source, to: (*oid, column.number), evidence: Evidence::Derived });
            }
        }
    }
    for (oid, number, text) in &facts.generated {
        let Some(relation) = catalog.relation(*oid) else { continue };
        let text = format!("SELECT {text} FROM {}", qualified(relation));
        let made_of = of_definition(&text, &world);
        for source in made_of.columns.iter().flatten().chain(&made_of.any).filter_map(|source| source.id) {
            edges.push(Edge { from: source, to: (*oid, *number), evidence: Evidence::Derived });
        }
    }
}

fn qualified(relation: &Relation) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{}.{}", quoted(&relation.schema), quoted(&relation.name))
}
