import asyncio

from openai import AsyncOpenAI


async def main() -> None:
    stream = await AsyncOpenAI().chat.completions.create(
        model="openai/gpt-4o",
        messages=[{"role": "user", "content": "Say hello."}],
        stream=True,
    )
    async for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)


asyncio.run(main())
