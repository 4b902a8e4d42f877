//! Generates the Rust side of `proto/`: messages (prost), their JSON form (pbjson) and the services (tonic).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "audit")]
    proto::generate()?;
    Ok(())
}

#[cfg(feature = "audit")]
mod proto {
    use std::{env, error::Error, fs, path::PathBuf};

    const FILES: [&str; 7] = [
        "guard/audit/v1/record.proto",
        "guard/control/v1/ingest.proto",
        "guard/control/v1/approvals.proto",
        "guard/control/v1/enrol.proto",
        "guard/control/v1/policy.proto",
        "guard/agent/v1/local.proto",
        "guard/agent/v1/approvals.proto",
    ];

    pub(crate) fn generate() -> Result<(), Box<dyn Error>> {
        let out = PathBuf::from(env::var("OUT_DIR")?);
        let descriptors = protox::compile(FILES, ["proto"])?;
        let encoded = prost::Message::encode_to_vec(&descriptors);
        fs::write(out.join("descriptors.bin"), &encoded)?;
        tonic_prost_build::configure()
            .compile_well_known_types(true)
            .extern_path(".google.protobuf", "::pbjson_types")
            .bytes(".guard.audit.v1.SealedRecord")
            .skip_debug([".guard.audit.v1.AsSent", ".guard.audit.v1.Parameter"])
            .build_client(env::var_os("CARGO_FEATURE_API").is_some())
            .build_server(env::var_os("CARGO_FEATURE_API").is_some())
            .compile_fds(descriptors)?;
        pbjson_build::Builder::new()
            .register_descriptors(&encoded)?
            .preserve_proto_field_names()
            .ignore_unknown_fields()
            .build(&[".guard"])?;
        Ok(())
    }
}
