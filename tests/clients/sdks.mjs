// Drives a client for Node; the lines are those of sdks.py.

import readline from "node:readline";

const { PROMPT, RESULT, WEATHER } = JSON.parse(process.env.CONTENT);

async function openai() {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI();
  return {
    create: async (body) => {
      if (!body) return await client.models.list();
      const answer = await client.chat.completions.create(body);
      if (!body.stream) return { ...answer, _request_id: answer._request_id };
      const chunks = [];
      for await (const chunk of answer) chunks.push(chunk);
      return chunks;
    },
  };
}

async function aiSdk() {
  const { openai } = await import("@ai-sdk/openai");
  const ai = await import("ai");
  const ask = (model, more) =>
    ai.generateText({ model: openai(model), prompt: PROMPT, ...more });
  return {
    streamed: async (model) => {
      let failure;
      const onError = ({ error }) => (failure ??= error);
      const asked = { model: openai(model), prompt: PROMPT, onError };
      const pieces = [];
      for await (const piece of ai.streamText(asked).textStream) pieces.push(piece);
      if (failure) throw failure;
      return pieces;
    },
    tools: async (model) => {
      const inputSchema = ai.jsonSchema(WEATHER);
      const tools = { weather: ai.tool({ inputSchema, execute: () => RESULT }) };
      return (await ask(model, { tools, stopWhen: ai.stepCountIs(2) })).text;
    },
    id: async (model) => (await ask(model)).response.headers["x-request-id"],
  };
}

function told(error) {
  const { status, statusCode, code, responseBody } = error;
  return `${error} ${JSON.stringify({ status, statusCode, code, responseBody })}`;
}

const make = { openai, aiSdk }[process.argv[2]];
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [key, method, argument] = JSON.parse(line);
  process.env.OPENAI_API_KEY = key;
  const answer = {};
  try {
    answer.value = await (await make())[method](argument);
  } catch (error) {
    answer.error = told(error);
  }
  console.log(JSON.stringify(answer));
}
