//! The Cedar schema, and what is taken from it once: names of types, the actions with their groups.

use std::{collections::HashSet, sync::LazyLock};

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Schema};

use crate::{columns::ColumnAction, vocabulary::Action};

/// The schema that every policy is checked against.
pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    Schema::from_cedarschema_str(include_str!("guard.cedarschema"))
        .map(|(schema, _)| schema)
        .expect("the schema is part of the program, and a test parses it")
});

pub(crate) struct Types {
    pub(crate) environment: EntityTypeName,
    pub(crate) server: EntityTypeName,
    pub(crate) database: EntityTypeName,
    pub(crate) schema: EntityTypeName,
    pub(crate) object: EntityTypeName,
    pub(crate) column: EntityTypeName,
    pub(crate) workload: EntityTypeName,
    action: EntityTypeName,
}

pub(crate) static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let name = |name: &str| {
        format!("Guard::{name}").parse().expect("a literal type name of the schema is a valid name")
    };
    Types {
        environment: name("Environment"),
        server: name("Server"),
        database: name("Database"),
        schema: name("Schema"),
        object: name("Object"),
        column: name("Column"),
        workload: name("Workload"),
        action: name("Action"),
    }
});

/// The actions as entities.
pub(crate) static ACTIONS: LazyLock<Actions> = LazyLock::new(|| {
    let all = SCHEMA.action_entities().expect("the schema's actions have no cycle: a test parses it");
    let build = |action: &str| {
        let uid = EntityUid::from_type_name_and_id(TYPES.action.clone(), EntityId::new(action));
        let groups: HashSet<EntityUid> = all.ancestors(&uid).into_iter().flatten().cloned().collect();
        // An action that the schema lacks belongs to no group; a test finds it.
        let entity = Entity::new_no_attrs(uid.clone(), groups.clone());
        (uid, entity, groups)
    };
    Actions {
        statements: Action::ALL.iter().map(|action| build(action.as_str())).collect(),
        columns: ColumnAction::ALL.iter().map(|action| build(action.as_str())).collect(),
    }
});

/// An action, as an entity and with its groups.
type Named = (EntityUid, Entity, HashSet<EntityUid>);

/// The actions as entities, in the order of [`Action::ALL`] and of [`ColumnAction::ALL`].
pub(crate) struct Actions {
    statements: Vec<Named>,
    columns: Vec<Named>,
}

/// An action of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnyAction {
    Statement(Action),
    Column(ColumnAction),
}

impl Actions {
    fn named(&self, action: AnyAction) -> &Named {
        match action {
            AnyAction::Statement(action) => &self.statements[action as usize],
            AnyAction::Column(action) => &self.columns[action as usize],
        }
    }

    /// The action's name for Cedar.
    pub(crate) fn uid(&self, action: Action) -> &EntityUid {
        &self.named(AnyAction::Statement(action)).0
    }

    /// The action with its groups as parents.
    pub(crate) fn entity(&self, action: Action) -> &Entity {
        &self.named(AnyAction::Statement(action)).1
    }

    /// The name of an action on columns.
    pub(crate) fn column_uid(&self, action: ColumnAction) -> &EntityUid {
        &self.named(AnyAction::Column(action)).0
    }

    /// An action on columns.
    pub(crate) fn column_entity(&self, action: ColumnAction) -> &Entity {
        &self.named(AnyAction::Column(action)).1
    }

    /// Whether `action` is `group`, or belongs to it.
    pub(crate) fn is_in(&self, action: AnyAction, group: &EntityUid) -> bool {
        let (uid, _, groups) = self.named(action);
        uid == group || groups.contains(group)
    }
}
