export OPENAI_BASE_URL=http://localhost:8321/v1
export OPENAI_API_KEY=sk-your-own-key
