// Drives a client for Node; the lines are those of sdks.py.

import readline from "node:readline";

const { PROMPT, RESULT, WEATHER, CITY } = JSON.parse(process.env.CONTENT);

async function openai(apiKey) {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ apiKey });
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

async function aiSdk(apiKey) {
  const { createOpenAI } = await import("@ai-sdk/openai");
  const ai = await import("ai");
  const ask = (model, more) =>
    ai.generateText({ model: createOpenAI({ apiKey })(model), prompt: PROMPT, ...more });
  return {
    regular: async (model) => (await ask(model)).text,
    streamed: async (model) => {
      let failure;
      const onError = ({ error }) => (failure ??= error);
      const asked = { model: createOpenAI({ apiKey })(model), prompt: PROMPT, onError };
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
    schema: async (model) => {
      const output = ai.Output.object({ schema: ai.jsonSchema(CITY) });
      return (await ask(model, { output })).output;
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
  const answer = {};
  try {
    answer.value = await (await make(key))[method](argument);
  } catch (error) {
    answer.error = told(error);
  }
  console.log(JSON.stringify(answer));
}
