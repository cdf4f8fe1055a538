import os

from llama_stack_client import LlamaStackClient

client = LlamaStackClient(
    base_url=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"),
    provider_data={"passthrough_api_key": os.environ["OPENAI_API_KEY"]},
)
answer = client.chat.completions.create(
    model="openai/gpt-4o",
    messages=[{"role": "user", "content": "Say hello."}],
)
print(answer.choices[0].message.content)
