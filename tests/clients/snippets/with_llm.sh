cat >> "$(dirname "$(llm logs path)")/extra-openai-models.yaml" <<END
- model_id: my-gpt-4o
  model_name: openai/gpt-4o
  api_base: $OPENAI_BASE_URL
  api_key_name: openai
  supports_tools: true
  supports_schema: true
  vision: true
END
llm -m my-gpt-4o "Say hello."
