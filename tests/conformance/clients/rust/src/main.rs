//! The crate `spiffe` as a client of the Workload API; see ../../README.md.

use serde_json::{json, Value};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509BundleSet, X509Context, X509Source};

fn code(e: &WorkloadApiError) -> String {
    match e {
        WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_) => "PermissionDenied".into(),
        _ if e.is_invalid_argument() => "InvalidArgument".into(),
        _ => format!("{e:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn authorities(set: &X509BundleSet) -> Value {
    set.iter().map(|(td, b)| (td.to_string(), json!(b.authorities().len()))).collect::<serde_json::Map<_, _>>().into()
}

fn say_x509(c: &X509Context) {
    let svids: Vec<Value> = c
        .svids()
        .iter()
        .map(|s| json!({"id": s.spiffe_id().to_string(), "hint": s.hint().unwrap_or(""), "leaf": hex(s.leaf().as_bytes())}))
        .collect();
    println!("{}", json!({"event": "x509", "svids": svids, "bundles": authorities(c.bundle_set())}));
}

/// The source is what the crate's users have: it connects again by itself.
async fn watch(endpoint: &str) -> Result<(), Box<dyn std::error::Error>> {
    let source = X509Source::builder().endpoint(endpoint).build().await?;
    let mut updates = source.updated();
    loop {
        say_x509(&*source.x509_context()?);
        updates.changed().await?;
    }
}

async fn run(args: &[String], client: &WorkloadApiClient) -> Result<(), WorkloadApiError> {
    match args[1].as_str() {
        "fetch" => {
            say_x509(&client.fetch_x509_context().await?);
            let set = client.fetch_x509_bundles().await?;
            println!("{}", json!({"event": "bundles", "domains": authorities(&set)}));
        }
        "jwt" => {
            let all = client.fetch_all_jwt_svids([&args[3]], None).await?;
            let svids: Vec<Value> = all
                .iter()
                .map(|s| json!({"id": s.spiffe_id().to_string(), "hint": s.hint().unwrap_or(""), "token": s.token()}))
                .collect();
            println!("{}", json!({"event": "jwt", "svids": svids}));
            let domains: serde_json::Map<_, _> = client
                .fetch_jwt_bundles()
                .await?
                .iter()
                .map(|(td, b)| (td.to_string(), json!(b.jwt_authorities().count())))
                .collect();
            println!("{}", json!({"event": "jwks", "domains": domains}));
        }
        "validate" => {
            let svid = client.validate_jwt_token(&args[3], &args[4]).await?;
            println!("{}", json!({"event": "valid", "id": svid.spiffe_id().to_string()}));
        }
        _ => std::process::exit(2),
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let endpoint = format!("unix://{}", args[2]);
    if args[1] == "watch" {
        if let Err(e) = watch(&endpoint).await {
            println!("{}", json!({"event": "error", "code": "watch", "text": e.to_string()}));
            std::process::exit(1);
        }
        return;
    }
    let done = match WorkloadApiClient::connect_to(&endpoint).await {
        Ok(client) => run(&args, &client).await,
        Err(e) => Err(e),
    };
    if let Err(e) = done {
        println!("{}", json!({"event": "error", "code": code(&e), "text": e.to_string()}));
        std::process::exit(1);
    }
}
