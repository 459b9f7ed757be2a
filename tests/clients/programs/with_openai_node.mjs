// with_openai_node.mjs BASE_URL FILE LONG_FILE: what openai-node returns, plain, as verbose_json, streamed, and as an error.
import { Buffer } from "node:buffer";
import { createReadStream, readFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";

const [baseURL, path, longPath] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const model = "whisper-1";
const create = (body) => client.audio.transcriptions.create({ model, ...body });

const json = await create({ file: createReadStream(path) });
const nameless = await create({ file: await toFile(Buffer.from(readFileSync(path))), language: "", prompt: "" });
const verbose = await create({
  file: createReadStream(path),
  response_format: "verbose_json",
  timestamp_granularities: ["word", "segment"],
});
const srt = await create({ file: createReadStream(path), response_format: "srt" });
const logprobs = await create({ file: createReadStream(path), response_format: "json", include: ["logprobs"] });
const chunked = await create({
  file: createReadStream(path),
  chunking_strategy: { type: "server_vad", threshold: 0.4, silence_duration_ms: 300 },
});

const events = [];
for await (const event of await create({ file: createReadStream(longPath), stream: true })) events.push(event);

let error;
try {
  await create({ file: createReadStream(path), model: "no-such-model" });
} catch (caught) {
  error = { name: caught.constructor.name, status: caught.status, code: caught.code, message: caught.message };
}
const models = [];
for await (const each of client.models.list()) models.push(each.id);

console.log(JSON.stringify({ json, nameless, verbose, srt, logprobs, chunked, events, error, models }));
