// with_vercel_ai.mjs BASE_URL FILE: what the AI SDK's transcribe returns, asked for nothing and with provider options.
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { transcribe } from "ai";

const [baseURL, path] = process.argv.slice(2);
const openai = createOpenAI({ baseURL, apiKey: "none" });
const audio = readFileSync(path);
const run = async (model, options) => {
  const { text, language, durationInSeconds, segments, warnings } = await transcribe({
    model: openai.transcription(model),
    audio,
    maxRetries: 0,
    ...(options && { providerOptions: { openai: options } }),
  });
  return { text, language, durationInSeconds, segments, warnings };
};

console.log(
  JSON.stringify({
    plain: await run("whisper-1"),
    words: await run("whisper-1", { timestampGranularities: ["word"], language: "en", prompt: "A story." }),
    newer: await run("gpt-4o-transcribe", { include: ["logprobs"] }),
  }),
);
