// Classifies a picture that somebody chooses, by gRPC-Web. A browser speaks no gRPC itself: Envoy translates.
//   npm install && npm run build && python3 -m http.server 8000
//   envoy -c ../../deploy/envoy/grpc_web.yaml        # from a second terminal; asks the server on localhost:50051
// and open http://localhost:8000/index.html, or …/index.html?server=URL where Envoy is elsewhere than on localhost:8081.

import { fromBinary, createFileRegistry } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { createClient, ConnectError, Code } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const TIMEOUT_MS = 10_000;
const server = new URLSearchParams(location.search).get("server") ?? "http://localhost:8081";

const contract = await fetch("v1.binpb"); // the API as it was released: no code is generated
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, new Uint8Array(await contract.arrayBuffer())));
const client = createClient(
  registry.getService("taxon.v1.ClassificationService"),
  createGrpcWebTransport({ baseUrl: server, defaultTimeoutMs: TIMEOUT_MS }),
);

document.querySelector("input").addEventListener("change", async ({ target }) => {
  const said = document.querySelector("output");
  said.textContent = "…";
  try {
    const image = new Uint8Array(await target.files[0].arrayBuffer());
    const answer = await client.classify({ input: { case: "image", value: image }, maxResults: 3 });
    const scores = answer.classifications.map(({ label, score }) => `${label} ${score.toFixed(4)}`);
    said.textContent = answer.unknown ? "unknown" : scores.join(", ");
  } catch (error) {
    const { code, rawMessage } = ConnectError.from(error);
    said.textContent = `${Code[code]}: ${rawMessage}`;
  }
});
document.querySelector("input").disabled = false;
