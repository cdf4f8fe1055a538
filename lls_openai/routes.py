"""The routes that are relayed, and the type of model that each wants."""

from llama_stack_api import ModelType

CHAT = "/v1/chat/completions"

MODEL_TYPES = {
    CHAT: ModelType.llm,
    "/v1/completions": ModelType.llm,
    "/v1/embeddings": ModelType.embedding,
}
