//! [`Schemas`]: the enabled apps of a node, with lookups.

use std::collections::BTreeMap;

use bastion::AppClaim;

use super::core_types::core_types;
use super::types::{AppSchema, TypeSchema};
use crate::domain::SyncDomain;
use crate::object::is_core_type;

/// The enabled apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schemas {
    apps: BTreeMap<String, AppSchema>,
    /// Types of every app.
    core: Vec<TypeSchema>,
}

impl Schemas {
    /// Collects apps that `load` has checked, by slug.
    pub(super) fn new(apps: BTreeMap<String, AppSchema>) -> Self {
        Self {
            apps,
            core: core_types(),
        }
    }

    /// The apps, sorted by slug.
    pub fn apps(&self) -> impl Iterator<Item = &AppSchema> {
        self.apps.values()
    }

    /// The apps as this node announces them, sorted by slug.
    pub fn claims(&self) -> Vec<AppClaim> {
        self.apps().map(AppSchema::claim).collect()
    }

    /// The app with that slug, if it is enabled.
    pub fn app(&self, slug: &str) -> Option<&AppSchema> {
        self.apps.get(slug)
    }

    /// A type by its app and number. Every app has the core types.
    pub fn type_(&self, slug: &str, number: u16) -> Option<&TypeSchema> {
        let app = self.app(slug)?;
        if is_core_type(number) {
            return self.core.iter().find(|it| it.number == number);
        }
        app.type_(number)
    }

    /// A type by its full name, such as `messages.message`, together with its app.
    pub fn type_named(&self, name: &str) -> Option<(&AppSchema, &TypeSchema)> {
        let (slug, _) = name.split_once('.')?;
        let app = self.app(slug)?;
        Some((app, app.types.iter().find(|it| it.name == name)?))
    }

    /// The domains of all enabled apps, app by app (the story's `SYNC_DOMAINS`).
    #[doc(alias = "SYNC_DOMAINS")]
    pub fn sync_domains(&self) -> impl Iterator<Item = &SyncDomain> {
        self.apps().flat_map(|app| &app.domains)
    }

    /// The first domain in which objects of a type travel.
    pub fn domain_of(&self, slug: &str, type_number: u16) -> Option<&SyncDomain> {
        self.app(slug)?.domains_of(type_number).next()
    }

    /// The domains that hold objects whose scopes travel in a domain, which may be one of them.
    pub fn domains_within(&self, domain: &str) -> impl Iterator<Item = &SyncDomain> {
        let of = self.domain(domain);
        let app = of.and_then(|of| self.app(&of.app));
        let domains = app.into_iter().flat_map(|app| &app.domains);
        domains.filter(move |it| {
            let (Some(app), Some(of)) = (app, of) else {
                return false;
            };
            let mut types = app.types.iter().filter(|type_| it.has_type(type_.number));
            types.any(|type_| {
                let scope = app.scope_type(type_.number);
                scope.is_some_and(|scope| scope != type_.number && of.has_type(scope))
            })
        })
    }

    /// Whether objects of a domain lie in scopes, so that only some identities read them.
    pub fn has_scopes(&self, domain: &str) -> bool {
        let domain = self.domain(domain);
        let app = domain.and_then(|domain| self.app(&domain.app));
        let (Some(domain), Some(app)) = (domain, app) else {
            return false;
        };
        let mut types = app.types.iter().filter(|it| domain.has_type(it.number));
        types.any(|it| app.scope_type(it.number).is_some())
    }

    /// The domain with that name.
    pub fn domain(&self, name: &str) -> Option<&SyncDomain> {
        self.sync_domains().find(|domain| domain.name == name)
    }
}
