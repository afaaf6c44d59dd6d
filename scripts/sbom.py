#!/usr/bin/env python3
"""A software bill of materials, SPDX 2.3: sbom.py [IMAGE-ROOT] > keylane.spdx.json

Lists the crates that Cargo.lock puts into the program, and the Debian packages whose records the image carries. The same content is
the same document: its name follows from it, and SOURCE_DATE_EPOCH sets its time.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path


def crates():
    """The program's own package, and all that it links or is built by; nothing of its tests."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent.parent).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    reached, waiting = {}, [root]
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached[node] = [dep["pkg"] for dep in nodes[node]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
            waiting += reached[node]
    return packages, reached, root


def spdx_id(*parts):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", "-".join(parts))


def entry(identity, name, version, url, licence, checksum=None):
    package = {
        "SPDXID": identity,
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": (licence or "NOASSERTION").replace("/", " OR "),
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}],
    }
    if checksum:
        package["checksums"] = [{"algorithm": "SHA256", "checksumValue": checksum}]
    return package


def main():
    known, reached, root = crates()
    lock = (Path(__file__).parent.parent / "Cargo.lock").read_text()
    checksums = {(name, version): sum for name, version, sum in
                 re.findall(r'name = "(.*)"\nversion = "(.*)"\nsource = .*\nchecksum = "(.*)"', lock)}
    ids = {node: spdx_id("crate", known[node]["name"], known[node]["version"]) for node in reached}
    packages, relations = [], [("SPDXRef-DOCUMENT", "DESCRIBES", ids[root])]
    for node in sorted(reached, key=ids.get):
        name, version = known[node]["name"], known[node]["version"]
        packages.append(entry(ids[node], name, version, f"pkg:cargo/{name}@{version}", known[node]["license"], checksums.get((name, version))))
        relations += [(ids[node], "DEPENDS_ON", ids[other]) for other in reached[node]]
    if len(sys.argv) > 1:
        records = sorted((Path(sys.argv[1]) / "var/lib/dpkg/status.d").iterdir())
        assert records, "the image carries records of Debian packages"
        for record in records:
            fields = dict(re.findall(r"^(Package|Version|Architecture): (.*)$", record.read_text(), re.M))
            name, version = fields["Package"], fields["Version"]
            identity = spdx_id("deb", name, version)
            url = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={fields['Architecture']}&distro=bookworm"
            packages.append(entry(identity, name, version, url, None))
            relations.append((ids[root], "DEPENDS_ON", identity))
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(seconds), timezone.utc) if seconds else datetime.now(timezone.utc)
    made = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    content = json.dumps([made, packages, relations], sort_keys=True)
    json.dump({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"keylane-{known[root]['version']}",
        "documentNamespace": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "creationInfo": {"created": made, "creators": ["Tool: keylane-sbom"]},
        "packages": packages,
        "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in relations],
    }, sys.stdout, indent=1)
    print()


main()
