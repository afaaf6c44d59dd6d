//! Certificates of a test's own, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const AUTHORITY: &str = "basicConstraints = critical, CA:TRUE";
const SERVER: &str = "basicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost";
const CLIENT: &str = "basicConstraints = CA:FALSE\nextendedKeyUsage = clientAuth";

/// A folder with `ca`, `localhost` and `client`, and with `stranger`, which vouches for itself;
/// each as `.crt` and `.key`.
pub(crate) struct Certificates(PathBuf);

impl Certificates {
    pub(crate) fn make(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let certificates = Self(folder);
        certificates.sign("ca", AUTHORITY, None);
        certificates.sign("stranger", AUTHORITY, None);
        certificates.sign("localhost", SERVER, Some("ca"));
        certificates.sign("client", CLIENT, Some("ca"));
        certificates
    }

    /// The path of a file, for example `client.crt`.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn sign(&self, name: &str, extensions: &str, by: Option<&str>) {
        let request = self.path(&format!("{name}.cnf"));
        let lines = format!(
            "[req]\ndistinguished_name = dn\nx509_extensions = v3\n[dn]\n[v3]\n{extensions}"
        );
        fs::write(Path::new(&request), lines).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config", &request]);
        openssl.args(["-subj", &format!("/CN={name}")]);
        openssl.args(["-out", &self.path(&format!("{name}.crt"))]);
        openssl.args(["-keyout", &self.path(&format!("{name}.key"))]);
        if let Some(by) = by {
            openssl.args(["-CA", &self.path(&format!("{by}.crt"))]);
            openssl.args(["-CAkey", &self.path(&format!("{by}.key"))]);
        }
        let made = openssl.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}
