import OpenAI from "openai";

const stream = await new OpenAI().chat.completions.create({
  model: "openai/gpt-4o",
  messages: [{ role: "user", content: "Say hello." }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
