// Drives a client for Node, as sdks.py does for Python.

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

const [client, method, argument] = process.argv.slice(2);
const driver = await { openai, aiSdk }[client]();
console.log(JSON.stringify(await driver[method](JSON.parse(argument))));
