// Classifies pictures with a running Taxon server:
//   npm install && node classify.js localhost:50051 picture.jpg [more.jpg ...]

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const CONTRACT = path.join(__dirname, "../../proto/released/v1.binpb"); // the API as it was released: no code is generated
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const DEADLINE_MS = 10_000;

const definition = protoLoader.loadFileDescriptorSetFromBuffer(fs.readFileSync(CONTRACT), { keepCase: true });
const { ClassificationService } = grpc.loadPackageDefinition(definition).taxon.v1;

function classify(client, image) {
  const deadline = Date.now() + DEADLINE_MS; // every call has one
  return new Promise((resolve, reject) => {
    client.Classify({ image, max_results: 3 }, { deadline }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

async function main([server, ...files]) {
  if (!server || files.length === 0) {
    console.error("usage: node classify.js HOST:PORT PICTURE [PICTURE ...]");
    return 2;
  }
  const client = new ClassificationService(server, grpc.credentials.createInsecure(), {
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  });
  let exitCode = 0;
  for (const file of files) {
    try {
      const answer = await classify(client, fs.readFileSync(file));
      const scores = answer.classifications.map(({ label, score }) => `${label} ${score.toFixed(4)}`);
      console.log(`${file}: ${answer.unknown ? "unknown" : scores.join(", ")}`);
    } catch (error) {
      console.error(`${file}: ${error.message}`); // one bad picture does not stop the others
      exitCode = 1;
    }
  }
  client.close();
  return exitCode;
}

main(process.argv.slice(2)).then((code) => (process.exitCode = code));
