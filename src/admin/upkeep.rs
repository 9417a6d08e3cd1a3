//! The store as a whole: another master key, a look at everything, a copy. Each decodes nothing: no key ever comes this
//! way, and a copy goes to whoever asked and to no place of their choosing.

use std::fs::File;
use std::io::Read as _;
use std::io::Seek as _;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use sha2::Digest as _;
use sha2::Sha256;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::input::Id;
use crate::admin::input::Shared;
use crate::admin::input::finish;
use crate::admin::input::json_body;
use crate::admin::respond::Problem;
use crate::admin::respond::json;
use crate::domain::audit::Asker;
use crate::sys::clock::Clock as _;
use crate::wire::envelope::ErrorBody;
use crate::wire::upkeep::CheckedBody;
use crate::wire::upkeep::RekeyedBody;

/// Bytes of a copy that are read, and sent, at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait for a slow reader; more are not read.
const AHEAD: usize = 4;
/// Copies that are made or fetched at a time: each takes the room of the store on disk.
pub const COPIES: usize = 1;
/// The digest of what is sent (RFC 9530).
const CONTENT_DIGEST: &str = "content-digest";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new().routes(routes!(rekey)).routes(routes!(check)).routes(routes!(backup))
}

/// Wraps every secret for another master key: the one that lies in the next key's file on the gateway's machine, else a random
/// one, which is written there. Nothing is interrupted.
#[utoipa::path(post, path = "/api/admin/store/rekey", operation_id = "rekeyStore", tag = "store", responses(
    (status = 200, description = "Done", body = RekeyedBody),
    (status = 409, description = "`NEXT_MASTER_KEY_REQUIRED`: the environment names the key, and no file has the next one; \
        `MASTER_KEY_PENDING`: the environment still names the key before; `MASTER_KEY_UNCHANGED`: the next key is the one in \
        use; `SEALED_UNREADABLE`: something does not open, and the sentence names it", body = ErrorBody),
))]
async fn rekey(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Response<Body> {
    let work = async {
        json_body(request).await?;
        let now = admin.clock.now().wall;
        let done = admin.store.keep(move |vault| vault.rekey(None, &asker, now, &mut |_| {})).await?;
        tracing::info!(event = "store.rekey", request_id = %id.0, wrapped = done.wrapped, key = done.new_key, "the master key was changed");
        json(
            StatusCode::OK,
            &RekeyedBody {
                old_key_id: done.old_key,
                new_key_id: done.new_key,
                wrapped: done.wrapped,
                dropped: done.dropped,
                key_file: done.key_file.map(|file| file.display().to_string()),
                pending: done.pending,
                log_cut_back: done.cut_back,
            },
        )
    };
    finish(&id, work.await)
}

/// Opens every sealed value once and looks at the structure of the database.
#[utoipa::path(get, path = "/api/admin/store/check", operation_id = "checkStore", tag = "store", responses(
    (status = 200, description = "What was found; `unreadable` is empty where all is well", body = CheckedBody),
))]
async fn check(State(admin): Shared, Extension(id): Id) -> Response<Body> {
    let work = async {
        let (key_id, found) = admin.store.read(|vault| Ok((vault.key_id(), vault.check()?))).await?;
        json(
            StatusCode::OK,
            &CheckedBody {
                key_id,
                connections: found.connections,
                secret_sets: found.secrets,
                variables: found.variables,
                lost: found.lost,
                unreadable: found.unreadable,
            },
        )
    };
    finish(&id, work.await)
}

/// A copy of the store, proven: every sealed value in it opens. The master key is not in it.
#[utoipa::path(post, path = "/api/admin/store/backup", operation_id = "backupStore", tag = "store", responses(
    (status = 200, description = "An SQLite database; `Content-Digest` holds its SHA-256", body = Vec<u8>,
        content_type = "application/vnd.sqlite3"),
    (status = 409, description = "`BACKUP_RUNNING`: somebody fetches one; `SEALED_UNREADABLE`: something does not open, and \
        the sentence names it", body = ErrorBody),
))]
async fn backup(
    State(admin): Shared,
    Extension(id): Id,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Response<Body> {
    let work = async {
        json_body(request).await?;
        let Ok(permit) = Arc::clone(&admin.copies).try_acquire_owned() else {
            let text = "a backup is being made; try again when it is done";
            return Err(Problem::new(StatusCode::CONFLICT, "BACKUP_RUNNING", text));
        };
        let now = admin.clock.now().wall;
        let (file, found) = admin.store.keep(move |vault| vault.backup_unnamed(&asker, now)).await?;
        tracing::info!(event = "store.backup", request_id = %id.0, connections = found.connections, "a backup was made");
        send(file, permit).await
    };
    finish(&id, work.await)
}

/// Sends a file in chunks that its reader asks for; `permit` is kept until the last.
async fn send(file: File, permit: OwnedSemaphorePermit) -> Result<Response<Body>, Problem> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "a backup could not be sent");
        Problem::internal()
    };
    let measured = tokio::task::spawn_blocking(move || measure(file)).await.map_err(|error| failed(&error))?;
    let (mut file, length, digest) = measured.map_err(|error| failed(&error))?;
    let (sender, chunks) = mpsc::channel::<std::io::Result<Bytes>>(AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut buffer = vec![0; CHUNK];
        loop {
            let next = match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
                Err(error) => Err(error),
            };
            let broken = next.is_err();
            // Whoever asked may have left.
            if sender.blocking_send(next).is_err() || broken {
                return;
            }
        }
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(chunks)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.sqlite3"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let digest = HeaderValue::try_from(format!("sha-256=:{}:", STANDARD.encode(digest)));
    headers.insert(CONTENT_DIGEST, digest.map_err(|error| failed(&error))?);
    Ok(response)
}

/// Length and SHA-256 of a file, which is at its beginning again afterwards.
fn measure(mut file: File) -> std::io::Result<(File, u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        hash.update(buffer.get(..count).unwrap_or_default());
    }
    file.rewind()?;
    Ok((file, length, hash.finalize().into()))
}
