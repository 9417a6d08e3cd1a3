//! Bodies of the admin API (first byte: which): no panic, and what is accepted holds its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sigilum::domain::address::AddressPolicy;
use sigilum::domain::draft::Draft;
use sigilum::wire::admin::CreateBody;
use sigilum::wire::admin::RotateBody;
use sigilum::wire::admin::decode;
use sigilum::wire::drain::DrainBody;
use sigilum::wire::drain::MOST_LEASE_SECONDS;
use sigilum::wire::drain::MOST_WAIT_SECONDS;
use sigilum::wire::patch::PatchBody;
use sigilum::wire::probe::TestBody;
use sigilum::wire::service_key::KeyBody;
use sigilum::wire::service_key::check_key;
use sigilum::wire::service_key::prefix;
use sigilum::wire::variables::VariableSetBody;

fn draft() -> Draft {
    Draft {
        id: "demo".to_owned(),
        base_url: "https://api.example.com/base".to_owned(),
        auth_secret_key: "key".to_owned(),
        ..Draft::default()
    }
}

fn judge(draft: Draft) {
    let Ok(checked) = draft.check(&AddressPolicy::default()) else { return };
    let settings = &checked.settings;
    assert!(!settings.upstream.authority.contains(['@', '/', '?', '#']));
    assert!(!settings.upstream.base_path.ends_with('/') && !settings.path_prefix.ends_with('/'));
    assert!(settings.allowed_methods.iter().all(|method| method != "CONNECT" && method != "TRACE"));
    assert!(!settings.extra_headers.contains_key("authorization") && !settings.extra_headers.contains_key("host"));
}

fuzz_target!(|data: &[u8]| {
    let Some((which, body)) = data.split_first() else { return };
    match which % 7 {
        0 => {
            if let Some((draft, _)) = decode::<CreateBody>(body).ok().and_then(CreateBody::into_draft) {
                judge(draft);
            }
        }
        1 => {
            if let Ok(patch) = decode::<PatchBody>(body) {
                judge(patch.apply(draft()));
            }
        }
        2 => drop(decode::<RotateBody>(body).map(RotateBody::into_parts)),
        3 => {
            let Ok(test) = decode::<TestBody>(body) else { return };
            let settings = draft().check(&AddressPolicy::default()).unwrap().settings;
            let Ok(request) = test.into_draft().check(&settings) else { return };
            assert!(!matches!(request.method.as_str(), "CONNECT" | "TRACE"));
        }
        5 => {
            if let Some((wait, lease)) = decode::<DrainBody>(body).ok().and_then(|body| body.into_seconds().ok()) {
                assert!(wait <= MOST_WAIT_SECONDS && (1..=MOST_LEASE_SECONDS).contains(&lease));
            }
        }
        4 => drop(decode::<VariableSetBody>(body).map(|mut body| body.take_value())),
        _ => {
            let given = decode::<KeyBody>(body).ok().and_then(|body| body.into_given().ok());
            if let Some(key) = given.and_then(|given| check_key(&given).ok()) {
                assert!(!key.is_empty() && prefix(&key).len() <= 11);
            }
        }
    }
});
