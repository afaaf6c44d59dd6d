"""The settings that a rendered chart mounts, with its files in a folder of ours: config_of.py RENDERED FOLDER"""

import sys
from pathlib import Path

import yaml

rendered, folder = Path(sys.argv[1]), Path(sys.argv[2])
documents = [document for document in yaml.safe_load_all(rendered.read_text()) if document]
(config, *_) = [d["data"]["keylane.toml"] for d in documents if d["kind"] == "ConfigMap" and "keylane.toml" in d["data"]]
secrets = {
    "amqp-url": "amqps://user:password@127.0.0.1/%2f",
    "database-url": "postgres://user@127.0.0.1/shop",
    "management-url": "http://user:password@127.0.0.1:15672",
}
for name, text in secrets.items():
    (folder / name).write_text(text)
print(config.replace("/etc/keylane/secrets", str(folder)))
