//! From a model to the provider that serves it: by the text before the first `/`, whole and as it is written.
//!
//! The script that starts hermes in its container has the last word; this table only says what to store beforehand. The
//! drift gate of the conformance suite compares the two, both ways.

/// Each prefix and its provider.
pub const PROVIDERS: &[(&str, &str)] = &[
    ("ai-gateway", "ai-gateway"),
    ("aigateway", "ai-gateway"),
    ("alibaba", "alibaba"),
    ("alibaba-coding-plan", "alibaba-coding-plan"),
    ("anthropic", "anthropic"),
    ("arcee", "arcee"),
    ("arcee-ai", "arcee"),
    ("aws", "bedrock"),
    ("bedrock", "bedrock"),
    ("copilot", "copilot"),
    ("copilot-acp", "copilot-acp"),
    ("custom", "custom"),
    ("dashscope", "alibaba"),
    ("deepseek", "deepseek"),
    ("gemini", "gemini"),
    ("gmi", "gmi"),
    ("google-gemini-cli", "google-gemini-cli"),
    ("grok", "xai"),
    ("hf", "huggingface"),
    ("huggingface", "huggingface"),
    ("kilocode", "kilocode"),
    ("kimi-coding", "kimi-coding"),
    ("kimi-coding-cn", "kimi-coding-cn"),
    ("lm-studio", "lmstudio"),
    ("lmstudio", "lmstudio"),
    ("mimo", "xiaomi"),
    ("minimax", "minimax"),
    ("minimax-cn", "minimax-cn"),
    ("minimax-oauth", "minimax-oauth"),
    ("nim", "nvidia"),
    // The script asks for keys that may not be known yet when a workspace is created; openrouter serves in any case.
    ("nousresearch", "openrouter"),
    ("nvidia", "nvidia"),
    ("ollama-cloud", "ollama-cloud"),
    // As nousresearch.
    ("openai", "openrouter"),
    ("openai-codex", "openai-codex"),
    ("opencode-go", "opencode-go"),
    ("opencode-zen", "opencode-zen"),
    ("openrouter", "openrouter"),
    ("qwen", "alibaba"),
    ("qwen-oauth", "qwen-oauth"),
    ("tencent", "tencent-tokenhub"),
    ("tencent-tokenhub", "tencent-tokenhub"),
    ("xai", "xai"),
    ("xiaomi", "xiaomi"),
    ("zai", "zai"),
];

/// The provider of `model`; `None` where its prefix is unknown or it has none.
///
/// Nothing stands for *unknown*: a provider that is stored is kept, and would be in the way of a later look.
pub fn provider_of(model: &str) -> Option<&'static str> {
    let (prefix, _) = model.split_once('/')?;
    PROVIDERS.iter().find(|(known, _)| *known == prefix).map(|(_, provider)| *provider)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_sorted_and_whole() {
        assert!(PROVIDERS.is_sorted_by(|one, other| one.0 < other.0), "each prefix once, in order");
        let providers: BTreeSet<&str> = PROVIDERS.iter().map(|(_, provider)| *provider).collect();
        assert_eq!((PROVIDERS.len(), providers.len()), (45, 32));
    }

    #[test]
    fn the_whole_prefix_decides() {
        for (model, provider) in [
            ("minimax/MiniMax-M2.7", Some("minimax")),
            ("minimax-oauth/MiniMax-M2", Some("minimax-oauth")),
            ("minimax-cn/x", Some("minimax-cn")),
            ("minimax/", Some("minimax")),
            ("alibaba/qwen3-32b", Some("alibaba")),
            ("qwen/qwen3-32b", Some("alibaba")),
            ("alibaba-coding-plan/qwen3-coder", Some("alibaba-coding-plan")),
            ("qwen-oauth/qwen-max", Some("qwen-oauth")),
            ("grok/grok-2", Some("xai")),
            ("xai/grok-4", Some("xai")),
            ("aws/anthropic.claude-sonnet-4", Some("bedrock")),
            ("tencent/hunyuan-pro", Some("tencent-tokenhub")),
            ("lm-studio/local-llama", Some("lmstudio")),
            ("copilot/gpt-4o", Some("copilot")),
            ("copilot-acp/x", Some("copilot-acp")),
            ("openai-codex/codex-mini-latest", Some("openai-codex")),
            ("openai/gpt-4o", Some("openrouter")),
            ("nousresearch/hermes-4-70b", Some("openrouter")),
            ("openrouter/anthropic/x", Some("openrouter")),
            ("some-unknown-vendor/foo", None),
            ("MiniMax/x", None),
            ("", None),
            ("/x", None),
            ("sonnet", None),
            ("MiniMax-M2.7", None),
            ("openai:gpt-4o", None),
        ] {
            assert_eq!(provider_of(model), provider, "{model:?}");
        }
    }
}
