//! How an agent that runs somewhere else joins: texts to paste.

use crate::id::WorkspaceId;

/// Texts that bring an external agent into the fleet. The token stays out of them: whoever pastes one fills it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippets {
    /// Registers once, from a shell.
    pub curl: String,
    /// A whole agent in Python.
    pub python: String,
    /// A session of Claude Code that hears and answers messages.
    pub claude_code_channel: String,
    /// The tools of the fleet for any agent that speaks MCP.
    pub universal_mcp: String,
}

impl Snippets {
    /// The texts for the workspace `id` of the platform at `platform_url`.
    pub fn new(platform_url: &str, id: WorkspaceId) -> Self {
        let id = id.to_string();
        // Nothing that leaves the quotes of a shell or of Python: where it came from a header, anyone may have sent it.
        let harmless = |c: &char| c.is_ascii_alphanumeric() || ":/.-_[]%~".contains(*c);
        let platform_url: String = platform_url.chars().filter(harmless).collect();
        let fill = |text: &str| text.replace("{{PLATFORM_URL}}", &platform_url).replace("{{WORKSPACE_ID}}", &id);
        Self {
            curl: fill(include_str!("curl.sh")),
            python: fill(include_str!("agent.py")),
            claude_code_channel: fill(include_str!("channel.sh")),
            universal_mcp: fill(include_str!("mcp.sh")),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const URL: &str = "https://fleet.example.com";

    #[test]
    fn each_text_has_what_its_reader_needs() {
        let id = WorkspaceId::from_uuid(Uuid::from_u128(7));
        let snippets = Snippets::new(URL, id);
        let named = id.to_string();
        let rows: [(&str, &[&str]); 4] = [
            (
                &snippets.curl,
                &[
                    "export WORKSPACE_AUTH_TOKEN=",
                    "export AGENT_URL=",
                    "https://fleet.example.com/registry/register",
                    "Authorization: Bearer",
                    "Content-Type: application/json",
                    "Origin: https://fleet.example.com",
                    "empty\n# 404",
                    "future-proof",
                    "<paste from create response>",
                    "\"agent_card\"",
                    "\"version\"",
                ],
            ),
            (
                &snippets.python,
                &[
                    "git+https://",
                    "@main",
                    "from molecule_agent import A2AServer, RemoteAgentClient",
                    "WORKSPACE_ID =",
                    "PLATFORM_URL =",
                    "AUTH_TOKEN =",
                    "INBOUND_URL =",
                    "start_in_background()",
                    "reported_url",
                    "register()",
                    "run_heartbeat_loop_async()",
                    "<paste from create response>",
                ],
            ),
            (
                &snippets.claude_code_channel,
                &[
                    "~/.claude/channels/molecule/.env",
                    "chmod 600",
                    "MOLECULE_PLATFORM_URL=",
                    "MOLECULE_WORKSPACE_IDS=",
                    "MOLECULE_WORKSPACE_TOKENS=<paste auth_token from create response>",
                    "molecule@molecule-channel",
                    "reply_to_workspace",
                    "same order",
                ],
            ),
            (
                &snippets.universal_mcp,
                &[
                    "pip install molecule-ai-workspace-runtime",
                    "claude mcp add molecule -s user",
                    "-e WORKSPACE_ID=",
                    "-e PLATFORM_URL=",
                    "-e MOLECULE_WORKSPACE_TOKEN=",
                    "-- molecule-mcp",
                    "every 20 seconds",
                    "inbound A2A",
                    "Origin",
                    "delegate_task,",
                    "delegate_task_async",
                    "check_task_status",
                    "list_peers",
                    "get_workspace_info",
                    "send_message_to_user",
                    "commit_memory",
                    "recall_memory",
                ],
            ),
        ];
        for (text, needed) in rows {
            for needed in needed.iter().copied().chain([URL, &named]) {
                assert!(text.contains(needed), "no {needed:?} in:\n{text}");
            }
            assert!(!text.contains("{{") && !text.contains("MOLECULE_ORG_ID"), "{text}");
        }
        assert!(!snippets.universal_mcp.contains("/registry/register") && !snippets.universal_mcp.contains("-- env "));
        assert!(!snippets.claude_code_channel.contains("--channels"));
        assert!(!snippets.curl.contains("heartbeat"));
    }

    #[test]
    fn a_host_that_was_sent_cannot_leave_its_quotes() {
        let snippets = Snippets::new("http://a'; rm -rf ~; '\n\"`$(x)", WorkspaceId::from_uuid(Uuid::nil()));
        assert!(snippets.curl.contains("'http://arm-rf~x/registry/register'"), "{}", snippets.curl);
    }
}
