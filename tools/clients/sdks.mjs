// Calls a client for Node, as sdks.py does for Python.

const { PROMPT, RESULT, WEATHER } = JSON.parse(process.env.INPUTS);

async function openai() {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI();
  return {
    create: async (body) => {
      if (!body) return await client.models.list();
      const response = await client.chat.completions.create(body);
      if (!body.stream) return { ...response, _request_id: response._request_id };
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      return chunks;
    },
  };
}

async function aiSdk() {
  const { openai } = await import("@ai-sdk/openai").catch(() => ({}));
  const provider = openai ?? (await import("@ai-sdk/anthropic")).anthropic;
  const ai = await import("ai");
  const generate = (model, options) =>
    ai.generateText({ model: provider(model), prompt: PROMPT, ...options });
  return {
    streamed: async (model) => {
      let failure;
      const onError = ({ error }) => (failure ??= error);
      const options = { model: provider(model), prompt: PROMPT, onError };
      const parts = [];
      for await (const part of ai.streamText(options).textStream) parts.push(part);
      if (failure) throw failure;
      return parts;
    },
    tools: async (model) => {
      const inputSchema = ai.jsonSchema(WEATHER);
      const tools = { weather: ai.tool({ inputSchema, execute: () => RESULT }) };
      return (await generate(model, { tools, stopWhen: ai.stepCountIs(2) })).text;
    },
    id: async (model) => {
      const { headers } = (await generate(model)).response;
      return headers["x-request-id"] ?? headers["request-id"];
    },
  };
}

async function langChain() {
  const { ChatOpenAI } = await import("@langchain/openai");
  const { HumanMessage } = await import("@langchain/core/messages");
  const { tool } = await import("@langchain/core/tools");
  return {
    streamed: async (model) => {
      const parts = [];
      for await (const part of await new ChatOpenAI({ model }).stream(PROMPT))
        parts.push(part.content);
      return parts;
    },
    tools: async (model) => {
      const weather = tool(() => RESULT, { name: "weather", schema: WEATHER });
      const chat = new ChatOpenAI({ model }).bindTools([weather]);
      const messages = [new HumanMessage(PROMPT)];
      messages.push(await chat.invoke(messages));
      messages.push(await weather.invoke(messages[1].tool_calls[0]));
      return (await chat.invoke(messages)).content;
    },
  };
}

const [target, method, argument] = process.argv.slice(2);
const client = await { openai, aiSdk, langChain }[target]();
console.log(JSON.stringify(await client[method](JSON.parse(argument))));
