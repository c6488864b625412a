//! The card an agent shows: who it is and what it can do.

use serde::{Deserialize, Serialize};

/// The version of the A2A protocol that cards of this library name.
pub const PROTOCOL_VERSION: &str = "0.3.0";

/// What an agent tells others about itself.
///
/// What is unknown is left out of the JSON; members this type does not know are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentCard {
    /// How people call the agent.
    pub name: String,
    /// What the agent is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The version of the agent itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where the agent answers; absent for one that polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the agent can be asked for.
    pub skills: Vec<Skill>,
    /// What the agent's server can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CardCapabilities>,
    /// The version of the A2A protocol the agent speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// Media types the agent takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_input_modes: Vec<String>,
    /// Media types the agent answers with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_output_modes: Vec<String>,
}

/// One thing an agent can be asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Skill {
    /// A stable name for programs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// A name for people.
    pub name: String,
    /// What the skill does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Words to find the skill by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// What an agent's server can do beyond answering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CardCapabilities {
    /// Whether it streams its answers.
    pub streaming: bool,
    /// Whether it calls back.
    pub push_notifications: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_out_what_is_unknown() {
        let card = AgentCard {
            name: "a".into(),
            skills: vec![Skill { name: "echo".into(), ..Skill::default() }],
            ..AgentCard::default()
        };
        assert_eq!(serde_json::to_value(&card).unwrap(), json!({"name": "a", "skills": [{"name": "echo"}]}));
    }

    #[test]
    fn survives_a_round_trip() {
        let value = json!({
            "name": "a",
            "description": "d",
            "version": "1",
            "url": "http://agent:8000",
            "skills": [{"id": "echo", "name": "Echo", "description": "says it again", "tags": ["test"]}],
            "capabilities": {"streaming": false, "pushNotifications": true},
            "protocolVersion": PROTOCOL_VERSION,
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
        });
        let card: AgentCard = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(card).unwrap(), value);
    }

    #[test]
    fn ignores_members_it_does_not_know() {
        let card: AgentCard = serde_json::from_value(json!({"name": "a", "preferredTransport": "GRPC"})).unwrap();
        assert_eq!(card.name, "a");
    }
}
