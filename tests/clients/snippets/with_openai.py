from openai import OpenAI

client = OpenAI()
answer = client.chat.completions.create(
    model="openai/gpt-4o",
    messages=[{"role": "user", "content": "Say hello."}],
)
print(answer.choices[0].message.content)
