// Makes tests/golden/k8s-schemas: JSON schemas of the kinds that deploy/ uses, and of nothing else. Needs node, npm, python3
// with pip, unzip, and the two package registries; run it when deploy/ uses a new kind or a newer version is wanted:
//
//     node tests/deploy/k8s-schemas.mjs
//
// Descriptions are left out, and an object with members named takes no others: a misspelt one is a mistake.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const KUBERNETES = "1.37.0"; // of the PyPI package kubernetes-validate, which carries that version's schemas
const PACKAGES = {
  "@kubernetes-models/cert-manager": "4.3.1", // later ones carry compiled validators instead of schemas
  "@kubernetes-models/istio": "2.3.0",
};
// Envoy Gateway's brings that of the Gateway API.
const TYPED = { "@kubernetes-models/envoy-gateway": "2.0.0", "@kubernetes-models/prometheus-operator": "6.0.0" };
// The generator does not find the types of later ones, so these stand a folder above, where it looks next.
const BASES = { "@kubernetes-models/apimachinery": "2.2.0", "@kubernetes-models/base": "5.0.1" };
const GENERATOR = { "ts-json-schema-generator": "2.4.0", typescript: "7.0.2" };

const CORE = {
  "v1/ConfigMap": "configmap-v1",
  "v1/Namespace": "namespace-v1",
  "v1/PersistentVolumeClaim": "persistentvolumeclaim-v1",
  "v1/Service": "service-v1",
  "v1/ServiceAccount": "serviceaccount-v1",
  "apps/v1/Deployment": "deployment-apps-v1",
  "apps/v1/StatefulSet": "statefulset-apps-v1",
  "networking.k8s.io/v1/NetworkPolicy": "networkpolicy-networking-v1",
  "policy/v1/PodDisruptionBudget": "poddisruptionbudget-policy-v1",
};
const CARRIED = {
  "cert-manager": ["cert-manager.io/v1/Certificate", "cert-manager.io/v1/Issuer"],
  istio: [
    "networking.istio.io/v1alpha3/DestinationRule",
    "networking.istio.io/v1alpha3/Gateway",
    "networking.istio.io/v1alpha3/ServiceEntry",
    "networking.istio.io/v1alpha3/VirtualService",
    "networking.istio.io/v1alpha3/EnvoyFilter",
    "security.istio.io/v1/AuthorizationPolicy",
  ],
};
const WRITTEN = {
  "envoy-gateway": ["Backend", "ClientTrafficPolicy", "EnvoyPatchPolicy", "SecurityPolicy"].map(
    (kind) => `gateway.envoyproxy.io/v1alpha1/${kind}`,
  ),
  "prometheus-operator": ["PodMonitor", "PrometheusRule", "ServiceMonitor"].map((kind) => `monitoring.coreos.com/v1/${kind}`),
  "gateway-api": ["BackendTLSPolicy", "HTTPRoute"].map((kind) => `gateway.networking.k8s.io/v1/${kind}`),
};
const work = mkdtempSync(join(tmpdir(), "k8s-schemas-"));
const run = (program, args, folder = work) => execFileSync(program, args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
const installed = (name, packages) => {
  const folder = join(work, name);
  run("mkdir", ["-p", folder]);
  writeFileSync(join(folder, "package.json"), '{"private":true}');
  const wanted = Object.entries(packages).map(([name, version]) => `${name}@${version}`);
  run("npm", ["install", "--silent", "--ignore-scripts", ...wanted], folder);
  return join(folder, "node_modules");
};

const definitions = {};
const kinds = {};

// What a schema says, without what it explains; `named` tells where a reference leads.
const tidy = (schema, named) => {
  if (Array.isArray(schema)) return schema.map((one) => tidy(one, named));
  if (schema === null || typeof schema !== "object") return schema;
  const out = {};
  for (const [key, value] of Object.entries(schema)) {
    if (["description", "default", "example", "$schema", "$id", "format", "$comment"].includes(key)) continue;
    if (key.startsWith("x-kubernetes-") || key === "nullable") continue;
    if (key === "$ref") out.$ref = `#/definitions/${named(value)}`;
    else if (["properties", "definitions", "patternProperties"].includes(key)) {
      out[key] = Object.fromEntries(Object.entries(value).map(([name, one]) => [name, tidy(one, named)]));
    } else if (["enum", "const", "required"].includes(key)) out[key] = value;
    else out[key] = tidy(value, named);
  }
  if (schema.nullable && typeof out.type === "string") out.type = [out.type, "null"];
  if (schema.nullable && out.enum) out.enum = [...out.enum, null];
  const open = schema["x-kubernetes-preserve-unknown-fields"] || "additionalProperties" in out;
  if (out.properties && Object.keys(out.properties).length > 0 && !open) out.additionalProperties = false;
  return out;
};

// Kubernetes itself.
run("python3", ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, `kubernetes-validate==${KUBERNETES}`]);
const inside = `kubernetes_validate/kubernetes-json-schema/v${KUBERNETES}-local-strict`;
run("unzip", ["-q", `kubernetes_validate-${KUBERNETES}-py3-none-any.whl`, `${inside}/*`]);
const core = JSON.parse(readFileSync(join(work, inside, "_definitions.json"))).$defs;
const take = (name) => {
  if (definitions[name]) return name;
  definitions[name] = {};
  definitions[name] = tidy(core[name], (at) => take(at.split("/").pop()));
  return name;
};
for (const [kind, file] of Object.entries(CORE)) {
  const schema = JSON.parse(readFileSync(join(work, inside, `${file}.json`)));
  definitions[kind] = tidy(schema, (at) => take(at.split("/").pop()));
  kinds[kind] = kind;
}
const META = take("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");

// Packages whose files carry the schema as it is.
const carried = installed("carried", PACKAGES);
for (const [name, wanted] of Object.entries(CARRIED)) {
  for (const kind of wanted) {
    const text = readFileSync(join(carried, "@kubernetes-models", name, `${kind}.js`), "utf8");
    const begin = text.indexOf("const schema = ") + "const schema = ".length;
    const schema = JSON.parse(text.slice(begin, text.indexOf("\n};", begin) + 2));
    const out = tidy(schema, () => META);
    out.properties = { apiVersion: {}, kind: {}, ...out.properties };
    definitions[kind] = out;
    kinds[kind] = kind;
  }
}

// Packages that carry types. EnvoyProxy is not among the kinds: two of its types have one name, which the generator does
// not take.
installed(".", BASES);
const typed = installed("typed", { ...TYPED, ...GENERATOR });
for (const [name, wanted] of Object.entries(WRITTEN)) {
  for (const kind of wanted) {
    const file = join(typed, "@kubernetes-models", name, `${kind}.d.ts`);
    const generator = join(typed, ".bin", "ts-json-schema-generator");
    const options = ["--path", file, "--type", `I${kind.split("/").pop()}`, "--no-type-check"];
    const made = run(generator, options, join(work, "typed"));
    const { definitions: all, $ref } = JSON.parse(made);
    const own = (at) => decodeURIComponent(at.replace("#/definitions/", ""));
    const pull = (at) => {
      if (at === "IObjectMeta") return META;
      const place = `${name}.${at.replace(/[^A-Za-z0-9.]+/g, "_")}`;
      if (!definitions[place]) {
        definitions[place] = {};
        definitions[place] = tidy(all[at], (inner) => pull(own(inner)));
      }
      return place;
    };
    definitions[kind] = { $ref: `#/definitions/${pull(own($ref))}` };
    kinds[kind] = kind;
  }
}
rmSync(work, { recursive: true });
// A value of any type, which the types do not say.
definitions["envoy-gateway.IJSONPatchOperation"].properties.value = {};

// A name in a reference must not hold a slash, nor a tilde.
const flat = (text) => text.replaceAll("/", ".");
const lines = Object.keys(definitions)
  .sort()
  .map((name) => `${JSON.stringify(flat(name))}:${JSON.stringify(definitions[name])}`);
const versions = { kubernetes: KUBERNETES, ...PACKAGES, ...TYPED };
const out = new URL("../golden/k8s-schemas/schemas.json", import.meta.url);
writeFileSync(
  out,
  `{"$comment":${JSON.stringify(`made by tests/deploy/k8s-schemas.mjs of ${JSON.stringify(versions)}`)},\n` +
    `"$schema":"http://json-schema.org/draft-07/schema#",\n"definitions":{\n${lines.join(",\n")}\n}}\n`,
);
console.log(`${Object.keys(kinds).length} kinds, ${lines.length} definitions`);
