// Drives the OpenAI SDK for Node. What is tried stands in content.py, whose constants
// come as JSON in the variable CONTENT.

import OpenAI from "openai";

const d = JSON.parse(process.env.CONTENT);

// As a user makes it: address and key from the environment.
const client = new OpenAI();
const once = new OpenAI({ maxRetries: 0 });

function expect(expected, actual) {
  const [wanted, got] = [JSON.stringify(expected), JSON.stringify(actual)];
  if (wanted !== got) throw new Error(`expected ${wanted}, got ${got}`);
}

function vendorName(model) {
  return model.slice(model.indexOf("/") + 1);
}

function heard(model, prompt = d.PROMPT) {
  return `${vendorName(model)} heard: ${prompt}`;
}

async function ask(model, messages = [d.USER_MESSAGE], more = {}) {
  const body = { model, messages, ...more };
  const answer = await client.chat.completions.create(body);
  return answer.choices[0].message;
}

async function pieces(model) {
  const body = { model, messages: [d.USER_MESSAGE], stream: true };
  const texts = [];
  for await (const chunk of await once.chat.completions.create(body)) {
    texts.push(chunk.choices[0].delta.content ?? "");
  }
  return texts.filter((text) => text);
}

async function refused({ model, key }) {
  const sdk = key ? new OpenAI({ apiKey: key, maxRetries: 0 }) : once;
  try {
    await sdk.chat.completions.create({ model, messages: [d.USER_MESSAGE] });
  } catch (error) {
    if (error instanceof OpenAI.APIError) return error;
    throw error;
  }
  throw new Error(`${model} answered`);
}

async function twoTurns(model) {
  const tools = [d.WEATHER_TOOL];
  const call = await ask(model, [d.USER_MESSAGE], { tools });
  const id = call.tool_calls[0].id;
  const result = { role: "tool", tool_call_id: id, content: d.TOOL_RESULT };
  const answer = await ask(model, [d.USER_MESSAGE, call, result], { tools });
  expect(`${vendorName(model)} read: ${d.TOOL_RESULT}`, answer.content);
}

function expectId(id) {
  expect("req_", (id ?? "").slice(0, 4));
}

const capabilities = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(d.LISTED, ids);
  },

  async regular() {
    for (const model of d.ONE_OF_EACH) {
      expect(heard(model), (await ask(model)).content);
    }
  },

  async stream() {
    for (const model of d.ONE_OF_EACH) {
      const texts = await pieces(model);
      expect(heard(model), texts.join(""));
      expect(true, texts.length > 1);
    }
  },

  async tools() {
    await twoTurns(d.OPENAI);
    await twoTurns(d.ANTHROPIC);
  },

  async signature() {
    await twoTurns(d.GEMINI);
  },

  async schema() {
    const body = { model: d.OPENAI, messages: [d.USER_MESSAGE] };
    const answer = await client.chat.completions.parse({
      ...body,
      response_format: d.CITY_FORMAT,
    });
    expect(d.CITY, JSON.parse(answer.choices[0].message.content));
  },

  async image() {
    const answer = await ask(d.OPENAI, [d.IMAGE_MESSAGE]);
    expect(`${heard(d.OPENAI)} (1 images)`, answer.content);
  },

  async errors() {
    for (const refusal of d.REFUSALS) {
      const error = await refused(refusal);
      expect(
        [refusal.error, refusal.status, refusal.code],
        [error.constructor.name, error.status, error.code],
      );
    }
    try {
      await pieces(d.BREAKING);
    } catch (error) {
      expect(d.BROKEN_STREAM_CODE, error.code);
      return;
    }
    throw new Error("a broken stream ended as if it were whole");
  },

  async retry() {
    expect("1", (await refused(d.RATE_LIMITED)).headers.get("retry-after"));
    const message = { role: "user", content: d.BUSY_PROMPT };
    const answer = await ask(d.OPENAI, [message]);
    expect(heard(d.OPENAI, d.BUSY_PROMPT), answer.content);
  },

  async id() {
    const body = { model: d.OPENAI, messages: [d.USER_MESSAGE] };
    expectId((await client.chat.completions.create(body))._request_id);
    expectId((await refused(d.RATE_LIMITED)).requestID);
  },

  async bearer() {
    await ask(d.OPENAI);
  },

  async header() {
    const data = JSON.stringify({ passthrough_api_key: process.env.HEADER_API_KEY });
    const sdk = new OpenAI({ apiKey: d.NO_KEY, defaultHeaders: { [d.HEADER]: data } });
    const body = { model: d.OPENAI, messages: [d.USER_MESSAGE] };
    await sdk.chat.completions.create(body);
  },
};

for (const [capability, attempt] of Object.entries(capabilities)) {
  let [outcome, detail] = ["ok", ""];
  try {
    await attempt();
  } catch (error) {
    [outcome, detail] = ["failed", String(error)];
  }
  console.log(JSON.stringify({ capability, outcome, detail }));
}
