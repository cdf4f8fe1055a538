import json
import os

from openai import OpenAI

provider_data = json.dumps({"passthrough_api_key": os.environ["GEMINI_API_KEY"]})
client = OpenAI(default_headers={"X-LlamaStack-Provider-Data": provider_data})
answer = client.chat.completions.create(
    model="gemini/gemini-2.5-flash-lite",
    messages=[{"role": "user", "content": "Say hello."}],
)
print(answer.choices[0].message.content)
