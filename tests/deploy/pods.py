"""Makes of a built manifest what `podman play kube` of Debian can run: one Pod, its volumes as folders of this machine.

    pods.py MANIFEST DEPLOYMENT SECRETS FOLDER [POD [ADDRESS=NAME...]] > pod.yaml
    pods.py --command MANIFEST DEPLOYMENT CONTAINER startupProbe
    pods.py --replace FOLDER SECRET

DEPLOYMENT may be a StatefulSet too. `--replace` puts the files of the folder SECRET in place of those of a volume, as a kubelet does when
a Secret has changed.

podman 4.3.1 knows no native sidecars, ignores probes and hooks, shares emptyDir volumes of one name between pods and has no projected
volumes. So sidecars become containers, probes and hooks are left to the test, and
each volume becomes a folder below FOLDER, laid out as a kubelet lays it out: root's, readable by the group of fsGroup,
behind links. SECRETS has a folder per Secret, with a file per key.
"""

import json
import os
import pathlib
import sys

import yaml

USER = 65532


def objects(path):
    found = [one for one in yaml.safe_load_all(open(path)) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def pod_of(all_objects, deployment):
    found = all_objects.get(("Deployment", deployment)) or all_objects["StatefulSet", deployment]
    return found["spec"]["template"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def lay_out(folder, files, mode):
    """As a kubelet writes them: a folder per version, a link to it, links to the files in it. Another version takes the place
    of the one before in one step."""
    version = folder / f"..version_{len(list(folder.iterdir()))}"
    for name, text in files.items():
        file = version / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
        os.chown(file, 0, USER)
        file.chmod(mode)
    version.mkdir(parents=True, exist_ok=True)
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in {name.split("/")[0] for name in files}:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def selected(source, data, what):
    if data is None:
        if source.get("optional"):
            return {}
        sys.exit(f"{what} not found")
    if "items" not in source:
        return data
    for item in source["items"]:
        if item["key"] not in data and not source.get("optional"):
            sys.exit(f"{what} has no key {item['key']}")
    return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}


class Volumes:
    def __init__(self, all_objects, secrets, folder):
        self.objects, self.secrets, self.folder = all_objects, secrets, folder

    def config_map(self, source):
        found = self.objects.get(("ConfigMap", source["name"]))
        data = found and {name: text.encode() for name, text in found["data"].items()}
        return selected(source, data, f"configmap {source['name']}")

    def secret(self, source):
        name = source.get("secretName") or source["name"]
        place = self.secrets / name
        data = {file.name: file.read_bytes() for file in place.iterdir()} if place.is_dir() else None
        return selected(source, data, f"secret {name}")

    def make(self, volume):
        folder = self.folder / volume["name"]
        folder.mkdir(parents=True)
        if "emptyDir" in volume or "persistentVolumeClaim" in volume:
            os.chown(folder, 0, USER)
            folder.chmod(0o2777)
        elif "configMap" in volume:
            lay_out(folder, self.config_map(volume["configMap"]), 0o644)
        elif "secret" in volume:
            lay_out(folder, self.secret(volume["secret"]), volume["secret"]["defaultMode"])
        else:
            files = {}
            for source in volume["projected"]["sources"]:
                if "configMap" in source:
                    files |= self.config_map(source["configMap"])
                else:
                    files |= self.secret(source["secret"])
            lay_out(folder, files, volume["projected"]["defaultMode"])
        return {"name": volume["name"], "hostPath": {"path": str(folder), "type": "Directory"}}


def main(manifest, deployment, secrets, folder, name=None, *hosts):
    all_objects = objects(manifest)
    template = pod_of(all_objects, deployment)
    spec = template["spec"]
    volumes = Volumes(all_objects, pathlib.Path(secrets), pathlib.Path(folder))
    kept = []
    for container in containers(spec):
        left_out = ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "restartPolicy", "resources", "ports"]
        kept.append({key: value for key, value in container.items() if key not in left_out})
    if len(kept) == 1:
        # podman ends a pod with its last container, and its network with it; a kubelet does not.
        kept.append({"name": "pause", "image": "registry.k8s.io/pause:3.10"})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name or deployment, "labels": template["metadata"]["labels"]},
        "spec": {
            "restartPolicy": "Never",
            "hostname": name or deployment,
            "hostAliases": [{"ip": host.split("=")[0], "hostnames": [host.split("=")[1]]} for host in hosts],
            "securityContext": spec.get("securityContext", {}),
            "containers": kept,
            "volumes": [volumes.make(volume) for volume in spec.get("volumes", [])],
        },
    }
    print(yaml.safe_dump(pod, sort_keys=False))


def command(manifest, deployment, name, *path):
    """The command or the request of a probe or hook of one container, as JSON."""
    spec = pod_of(objects(manifest), deployment)["spec"]
    found = next(container for container in containers(spec) if container["name"] == name)
    for key in path:
        found = found[key]
    print("\n".join(found["exec"]["command"]) if "exec" in found else json.dumps(found["httpGet"]))


if __name__ == "__main__":
    if sys.argv[1] == "--command":
        command(*sys.argv[2:])
    elif sys.argv[1] == "--replace":
        lay_out(pathlib.Path(sys.argv[2]), {file.name: file.read_bytes() for file in pathlib.Path(sys.argv[3]).iterdir()}, 0o440)
    else:
        main(*sys.argv[1:])
