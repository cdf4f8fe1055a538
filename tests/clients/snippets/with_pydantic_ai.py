from pydantic_ai import Agent

agent = Agent("openai-chat:openai/gpt-4o")
print(agent.run_sync("Say hello.").output)
