from langchain_openai import ChatOpenAI

chat = ChatOpenAI(model="openai/gpt-4o")
print(chat.invoke("Say hello.").content)
