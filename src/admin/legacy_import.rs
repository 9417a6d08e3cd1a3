//! Makes credential variables of keys that stand in files, and connections that inject them. Each step is one that the API
//! takes too, with its rules and its entry in the audit; all of them can be taken again.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::admin::Admin;
use crate::admin::legacy::Finding;
use crate::admin::legacy::Look;
use crate::admin::legacy::look;
use crate::admin::respond::Problem;
use crate::domain::audit::Asker;
use crate::domain::draft::Draft;
use crate::domain::ids::ConnectionId;
use crate::domain::legacy;
use crate::domain::record::Secrets;
use crate::domain::record::ToolPolicy;
use crate::domain::relay::RelayRefused;
use crate::domain::secret::Secret;
use crate::store::StoreError;
use crate::store::vault::RotationRequest;
use crate::sys::clock::Clock as _;
use crate::wire::catalog::Catalog;
use crate::wire::catalog::Template;
use crate::wire::legacy::LegacyConnectionBody;
use crate::wire::legacy::LegacyImportBody;
use crate::wire::legacy::LegacyImportedBody;
use crate::wire::legacy::LegacySkippedBody;

/// Days after which a key that lay in clear should be replaced.
const ROTATION_DAYS: i64 = 90;
/// Connections of one provider that are made this way.
const MAX_OF_PROVIDER: u32 = 100;
/// Why, for the audit.
const REASON: &str = "import of OpenClaw's keys";

/// `POST /api/admin/openclaw/legacy-keys/import`.
pub(super) async fn import(
    admin: &Admin,
    asker: &Asker,
    body: LegacyImportBody,
) -> Result<LegacyImportedBody, Problem> {
    let ids = body.finding_ids.unwrap_or_default();
    let wanted = body.connection_id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
    let relayed = asker.relay().is_some();
    if relayed && wanted.is_some() {
        return Err(RelayRefused::Import.into());
    }
    let _turn = admin.legacy.turn.lock().await;
    let mut look = look(admin).await?;
    if relayed {
        // The file may be of the making of whoever relays: a template in it could lead anywhere.
        look.catalog = Catalog::defaults();
    }
    if !ids.is_empty() {
        look = look.select(&ids)?;
    }
    let bound = match &wanted {
        Some(id) => Some(bindable(admin, id, &look).await?),
        None => None,
    };
    let mut done = LegacyImportedBody { warnings: std::mem::take(&mut look.warnings), ..Default::default() };
    let mut refused = Refused::new();
    for finding in &look.findings {
        if done.imported_variables.contains(&finding.variable) || refused.contains_key(&finding.variable) {
            continue;
        }
        match set_variable(admin, asker, finding).await? {
            Ok(true) => done.imported_variables.push(finding.variable.clone()),
            Ok(false) => {}
            // There is but one, and whoever asked wants it in a connection.
            Err(reason) if bound.is_some() => return Err(Problem::invalid(reason)),
            Err(reason) => drop(refused.insert(finding.variable.clone(), reason)),
        }
    }
    done.imported_count = done.imported_variables.len() as u64;
    let secured = look.findings.iter().filter(|finding| !refused.contains_key(&finding.variable));
    done.secured_finding_ids = secured.map(|finding| finding.id.clone()).collect();
    match (bound, look.findings.first()) {
        (Some((id, secret)), Some(finding)) => {
            let variable = finding.variable.clone();
            rotate(admin, asker, &id, &secret, &variable).await?;
            done.connection_id = Some(id);
            done.bound_secret_key = Some(secret);
            done.bound_variable = Some(variable);
        }
        _ => connect(admin, asker, &look, &refused, &mut done).await?,
    }
    Ok(done)
}

/// Variables that could not be made, and why.
type Refused = BTreeMap<String, String>;

/// The connection that is to inject the one value, and the name of its secret; asked before anything is changed.
async fn bindable(admin: &Admin, id: &str, look: &Look) -> Result<(String, String), Problem> {
    let variables: BTreeSet<_> = look.findings.iter().map(|finding| &finding.variable).collect();
    if variables.len() != 1 {
        let text =
            format!("connection_id: takes one value, and the keys have {}; name one in finding_ids", variables.len());
        return Err(Problem::invalid(text));
    }
    let wanted = id.to_owned();
    let listed = admin.store.read(move |vault| vault.get(&wanted)).await?;
    if let Some(place) = listed.declared {
        return Err(StoreError::Declared { id: id.to_owned(), place }.into());
    }
    let secret = listed.record.auth_secret_key.clone();
    let secret = secret.ok_or_else(|| Problem::invalid("connection_id: that connection injects no secret"))?;
    Ok((id.to_owned(), secret))
}

/// Makes the variable; `false` where it holds the value already, a reason where it can never be one.
async fn set_variable(admin: &Admin, asker: &Asker, finding: &Finding) -> Result<Result<bool, String>, Problem> {
    if finding.holder.variable.as_ref() == Some(&finding.variable) {
        return Ok(Ok(false));
    }
    let (key, value) = (finding.variable.clone(), finding.found.value.duplicate());
    let (asker, now) = (asker.clone(), admin.clock.now().wall);
    let set = admin.store.change(move |vault| {
        // Somebody may have made one of that name since the store was asked.
        if vault.stored_variable(&key)?.is_some_and(|stored| stored != value) {
            return Err(StoreError::Exists);
        }
        vault.set_variable(&key, &value, asker.actor(), &asker, now)
    });
    match set.await {
        Ok(_) => Ok(Ok(true)),
        Err(StoreError::VariableInvalid(reason)) => Ok(Err(reason)),
        Err(error @ StoreError::VariableCycle { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn rotate(admin: &Admin, asker: &Asker, id: &str, secret: &str, variable: &str) -> Result<(), Problem> {
    let secrets = Secrets::from([(secret.to_owned(), reference(variable))]);
    let request = RotationRequest { secrets, by: asker.actor().to_owned(), reason: REASON.to_owned() };
    let (id, asker, now) = (id.to_owned(), asker.clone(), admin.clock.now().wall);
    match admin.store.change(move |vault| vault.rotate(&id, request, &asker, now)).await {
        // It refers to the variable already.
        Ok(_) | Err(StoreError::Unchanged) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A connection for each variable whose provider has a template, unless one is there.
async fn connect(
    admin: &Admin,
    asker: &Asker,
    look: &Look,
    refused: &Refused,
    done: &mut LegacyImportedBody,
) -> Result<(), Problem> {
    let listed = admin.store.read(|vault| vault.list()).await?.into_iter();
    let mut names: BTreeMap<String, String> =
        listed.map(|one| (one.record.settings.id.as_str().to_owned(), one.record.settings.name.clone())).collect();
    // By variable: where in the answer its connection is.
    let mut made: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in &look.findings {
        if let Some(reason) = refused.get(&finding.variable) {
            done.skipped_findings.push(skipped(finding, reason.clone()));
            continue;
        }
        if let Some(connection) =
            made.get(finding.variable.as_str()).and_then(|at| done.secured_connections.get_mut(*at))
        {
            connection.imported_count = connection.imported_count.saturating_add(1);
            continue;
        }
        let connected = match &finding.holder.connection {
            Some(id) => Ok(LegacyConnectionBody {
                provider: finding.found.provider.clone(),
                connection_id: id.clone(),
                connection_name: names.get(id).cloned().unwrap_or_default(),
                template_key: None,
                created: false,
                imported_count: 1,
                secret_keys: Vec::new(),
            }),
            None => create(admin, asker, finding, &look.catalog, &names).await?,
        };
        match connected {
            Ok(connection) => {
                names.insert(connection.connection_id.clone(), connection.connection_name.clone());
                made.insert(&finding.variable, done.secured_connections.len());
                done.secured_connections.push(connection);
            }
            Err(reason) => done.skipped_findings.push(skipped(finding, reason)),
        }
    }
    Ok(())
}

/// Makes the connection; a reason where there can be none.
async fn create(
    admin: &Admin,
    asker: &Asker,
    finding: &Finding,
    catalog: &Catalog,
    names: &BTreeMap<String, String>,
) -> Result<Result<LegacyConnectionBody, String>, Problem> {
    let (provider, variable) = (&finding.found.provider, &finding.variable);
    let kept = |why: &str| Ok(Err(format!("{why}; the key is in the variable {variable}")));
    let Some(template) = catalog.services.iter().find(|template| template.key == *provider) else {
        return kept(&format!("the service catalog has no template {provider}"));
    };
    if !is_injected(template, &finding.found.field) {
        return kept(&format!("connections of the template {provider} inject another secret"));
    }
    let ids = (1..=MAX_OF_PROVIDER).map(|number| match number {
        1 => format!("sigilum-secure-{provider}"),
        number => format!("sigilum-secure-{provider}-{number}"),
    });
    let free = ids.filter(|id| ConnectionId::parse(id).is_ok()).find(|id| !names.contains_key(id));
    let Some(id) = free else { return kept("no id of a connection is free") };
    let checked = match draft(template, &id).check(&admin.addresses.load()) {
        Ok(checked) => checked,
        Err(error) => return kept(&format!("the template makes no connection: {error}")),
    };
    let secret = template.auth_secret_key.clone();
    let secrets = Secrets::from([(secret.clone(), reference(variable))]);
    let (asker, now) = (asker.clone(), admin.clock.now().wall);
    match admin.store.change(move |vault| vault.create_connection(checked, secrets, &asker, now)).await {
        Ok(record) => Ok(Ok(LegacyConnectionBody {
            provider: provider.clone(),
            connection_id: id,
            connection_name: record.settings.name,
            template_key: Some(template.key.clone()),
            created: true,
            imported_count: 1,
            secret_keys: vec![secret],
        })),
        Err(StoreError::Invalid(error)) => kept(&format!("the connection cannot inject it: {error}")),
        Err(error) => Err(error.into()),
    }
}

/// Whether a member of this name is what connections of the template inject, and not another secret of the provider.
fn is_injected(template: &Template, field: &str) -> bool {
    let named =
        template.credential_fields.iter().find(|known| known.env_var == field || legacy::is_alike(&known.key, field));
    named.map_or_else(|| legacy::is_generic(field), |named| named.key == template.auth_secret_key)
}

fn draft(template: &Template, id: &str) -> Draft {
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let draft = Draft {
        id: id.to_owned(),
        name: format!("{} (secured)", template.label),
        protocol: template.protocol.clone(),
        base_url: template.base_url.clone(),
        path_prefix: template.path_prefix.clone(),
        auth_mode: template.auth_mode.clone(),
        auth_header_name: given(&template.auth_header_name),
        auth_prefix: given(&template.auth_prefix),
        auth_secret_key: template.auth_secret_key.clone(),
        rotation_interval_days: ROTATION_DAYS,
        ..Draft::default()
    };
    if template.protocol != "mcp" {
        return draft;
    }
    let subjects = template.mcp_subject_tool_policies.iter().map(|(subject, policy)| {
        let (allow, deny) = (policy.allowlist.clone(), policy.denylist.clone());
        (subject.clone(), ToolPolicy { allow, deny, max_tools: policy.max_tools_exposed })
    });
    Draft {
        base_url: given(&template.mcp_base_url).unwrap_or(draft.base_url),
        mcp_transport: template.mcp_transport.clone(),
        mcp_endpoint: template.mcp_endpoint.clone(),
        mcp_policy: ToolPolicy {
            allow: template.mcp_tool_allowlist.clone(),
            deny: template.mcp_tool_denylist.clone(),
            max_tools: template.mcp_max_tools_exposed,
        },
        mcp_subjects: subjects.collect(),
        ..draft
    }
}

fn reference(variable: &str) -> Secret {
    Secret::new(format!("{{{{{variable}}}}}"))
}

fn skipped(finding: &Finding, reason: String) -> LegacySkippedBody {
    LegacySkippedBody {
        id: finding.id.clone(),
        provider: finding.found.provider.clone(),
        field: finding.found.field.clone(),
        source_path: finding.path.clone(),
        masked: finding.masked(),
        reason,
    }
}
