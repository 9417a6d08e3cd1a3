//! `connection add`: a new connection, by its fields or from a template of the service catalog.

use clap::Args;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::app::connections_api::ConnectionsApi;
use crate::cli::args::Globals;
use crate::cli::connection::fields::FieldOptions;
use crate::cli::connection::id;
use crate::cli::connection::open;
use crate::cli::connection::secrets;
use crate::cli::connection::secrets::NamedSecret;
use crate::cli::connection::secrets::SecretOptions;
use crate::cli::connection::show;
use crate::cli::connection::template;
use crate::cli::connection::template::CredentialField;
use crate::cli::gateway_api;
use crate::cli::outcome::CliError;
use crate::cli::outcome::Outcome;
use crate::cli::printer::Printer;
use crate::cli::secret_source;
use crate::cli::secret_source::Place;
use crate::cli::shell;
use crate::domain::secret::Secret;
use crate::sys::env;
use crate::sys::terminal;

/// What stands for a secret where it is not to be seen.
const HIDDEN: &str = "****";

/// Options of `connection add`.
#[derive(Debug, Clone, Args)]
pub(super) struct AddArgs {
    /// What approvals and paths call it: 3 to 64 of a-z, 0-9 and '-' [default: the catalog's, else from --name]
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Taken so that it can be refused without being repeated.
    #[arg(value_name = "SECRET", hide = true)]
    literal: Vec<String>,
    /// The same as ID
    #[arg(long = "id", value_name = "ID", hide = true, conflicts_with = "id")]
    id_option: Option<String>,
    /// Fill the fields from this template of the service catalog and ask for its credentials
    #[arg(long, value_name = "KEY")]
    from_catalog: Option<String>,
    /// The fields.
    #[command(flatten)]
    fields: FieldOptions<true>,
    /// The secrets; on a terminal without any of these the one that is injected is asked for.
    #[command(flatten)]
    secrets: SecretOptions,
    /// Say what would be added, and add nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Adds it.
pub(super) async fn run(args: &AddArgs, globals: &Globals, printer: &mut Printer) -> Result<Outcome, CliError> {
    if !args.literal.is_empty() {
        return Err(secret_source::on_argv(secrets::OPTIONS));
    }
    args.secrets.check()?;
    let typed = args.id.as_deref().or(args.id_option.as_deref()).map(id).transpose()?;
    let api = open(globals, printer)?;
    let template = match &args.from_catalog {
        Some(key) => Some(from_catalog(&api, key).await?),
        None => None,
    };
    let mut body = template.as_ref().map(template::body).unwrap_or_default();
    if let Some(id) = &typed {
        body.insert("id".to_owned(), json!(id.as_str()));
    }
    for (name, value) in args.fields.given() {
        if value.is_null() {
            body.remove(name);
        } else {
            body.insert(name.clone(), value.clone());
        }
    }
    if body.get("base_url").is_none() {
        return Err(CliError::new(Outcome::Usage, "nothing says where the provider is")
            .hint("give --base-url URL, or --from-catalog KEY"));
    }
    let given = given_secrets(args, template.as_ref(), &mut body, printer)?;
    if args.dry_run {
        return dry_run(args.json, &api, &body, &given, printer).await;
    }
    let secrets: Map<_, _> =
        given.iter().map(|secret| (secret.name.clone(), Value::from(secret.value.expose()))).collect();
    body.insert("secrets".to_owned(), Value::Object(secrets));
    let created = api.create(&Value::Object(body)).await.map_err(|error| {
        let failed = gateway_api::failed(&error);
        match (error.status(), failed.hint.is_some()) {
            (409, false) => failed.hint("change it with `sigilum connection set`, its secrets with `… rotate`"),
            _ => failed,
        }
    })?;
    if args.json {
        printer.json(&created)?;
        return Ok(Outcome::Done);
    }
    let id = created.get("id").and_then(Value::as_str).unwrap_or_default();
    printer.ok(&format!("Connection {id} added."))?;
    printer.lines(&show::details(&created))?;
    let test = template
        .as_ref()
        .map_or_else(|| format!("sigilum connection test {id}"), |template| template::test_command(template, id));
    printer.note(&format!("Try it with `{test}`. Agents need an approval for the service {id}; register it once with"));
    printer.note(&format!("`sigilum service add --service-slug {id}`, then their first request asks for one."));
    Ok(Outcome::Done)
}

async fn from_catalog(api: &ConnectionsApi, key: &str) -> Result<Value, CliError> {
    let catalog = api.catalog().await.map_err(|error| gateway_api::failed(&error))?;
    template::find(&catalog, key.trim()).cloned().ok_or_else(|| {
        let keys = template::keys(&catalog).join(", ");
        CliError::new(Outcome::Failed, format!("the service catalog has no {:?}", key.trim()))
            .hint(format!("it has: {keys}"))
    })
}

/// A secret with the name it is stored under.
struct Given {
    name: String,
    value: Secret,
    origin: String,
}

/// The secrets, each with its name, and the name of the injected one in the body.
fn given_secrets(
    args: &AddArgs,
    template: Option<&Value>,
    body: &mut Map<String, Value>,
    printer: &mut Printer,
) -> Result<Vec<Given>, CliError> {
    let mut read = args.secrets.read(printer)?;
    let fields = template.map(template::credentials).unwrap_or_default();
    let named = |body: &Map<String, Value>| body.get("auth_secret_key").and_then(Value::as_str).map(ToOwned::to_owned);
    let only = match read.as_slice() {
        [only] => only.name.clone(),
        _ => None,
    };
    let of_template = fields.first().map(|field| field.key.clone());
    let injected = named(body).or(only).or(of_template).unwrap_or_else(|| by_mode(body).to_owned());
    let is_mcp = body.get("protocol").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case("mcp"));
    if fields.is_empty() {
        // An MCP server may want none.
        if !is_mcp || !read.is_empty() || named(body).is_some() {
            read = secrets::or_typed(read, &injected, printer)?;
        }
    } else {
        ask_for(&fields, &injected, &mut read, printer)?;
    }
    if !read.is_empty() {
        body.entry("auth_secret_key").or_insert_with(|| json!(injected));
    }
    Ok(read
        .into_iter()
        .map(|NamedSecret { name, value, origin }| Given {
            name: name.unwrap_or_else(|| injected.clone()),
            value,
            origin,
        })
        .collect())
}

/// What the secret is called where nobody says.
fn by_mode(body: &Map<String, Value>) -> &'static str {
    match body.get("auth_mode").and_then(Value::as_str) {
        Some("header_key" | "query_param") => "api_key",
        Some(_) | None => "access_token",
    }
}

/// Asks for the credentials of a template that were not named: a person at a terminal, else the variable that
/// usually holds one.
fn ask_for(
    fields: &[CredentialField],
    injected: &str,
    read: &mut Vec<NamedSecret>,
    printer: &mut Printer,
) -> Result<(), CliError> {
    for field in fields {
        let is_given = read.iter().any(|secret| secret.name.as_deref().unwrap_or(injected) == field.key);
        if is_given {
            continue;
        }
        let name = Some(field.key.clone());
        let needed = field.required || field.key == injected;
        if terminal::is_attended() {
            if !field.help.is_empty() {
                printer.note(&crate::app::owner_api::readable(&field.help));
            }
            let optional = if needed { "" } else { ", Enter for none" };
            let label = crate::app::owner_api::readable(&field.label);
            let text = secret_source::typed(&format!("{label}{optional}"), printer)?;
            if !text.trim().is_empty() {
                let value = Secret::new(text.trim().to_owned());
                read.push(NamedSecret { name, value, origin: "the terminal".to_owned() });
                continue;
            }
        } else if !field.env_var.is_empty() && env::lookup(&field.env_var).is_some() {
            let value = Place::Variable(&field.env_var).read(&field.label, printer)?;
            printer.note(&format!("{} is taken from the variable {}", field.key, field.env_var));
            read.push(NamedSecret { name, value, origin: format!("variable {}", field.env_var) });
            continue;
        }
        if needed {
            let variable = match field.env_var.as_str() {
                "" => "VARIABLE",
                name => name,
            };
            return Err(CliError::new(Outcome::Usage, format!("the credential {} is missing", field.key)).hint(
                format!("--secret-env {}={variable}, --secret-file or --secret-stdin", shell::word(&field.key)),
            ));
        }
    }
    Ok(())
}

/// What would be sent, without its secrets; that the id is taken is told now too.
async fn dry_run(
    json: bool,
    api: &ConnectionsApi,
    body: &Map<String, Value>,
    given: &[Given],
    printer: &mut Printer,
) -> Result<Outcome, CliError> {
    if let Some(id) = body.get("id").and_then(Value::as_str)
        && api.find(id).await.map_err(|error| gateway_api::failed(&error))?.is_some()
    {
        return Err(CliError::new(Outcome::Failed, format!("there is a connection {id} already"))
            .hint("change it with `sigilum connection set`, its secrets with `… rotate`"));
    }
    let mut shown = body.clone();
    let hidden = |secret: &Given| (secret.name.clone(), Value::from(format!("{HIDDEN} from {}", secret.origin)));
    shown.insert("secrets".to_owned(), Value::Object(given.iter().map(hidden).collect()));
    let shown = Value::Object(shown);
    if json {
        printer.json(&shown)?;
    } else {
        printer.line("Would add:")?;
        printer.lines(&show::details(&shown))?;
    }
    Ok(Outcome::Done)
}
