//! Questions to the local runtime's DNS.

use gamut_local::fuzz::dns_answer;
use hickory_proto::op::{Message, MessageType};

/// An answer is one, to this question, and fits into what the asker can take.
pub(crate) fn dns(question: &[u8]) {
    for (udp, limit) in [(true, 1232), (false, 65535)] {
        let Some(answer) = dns_answer(question, udp) else { continue };
        assert!(answer.len() <= limit, "{} bytes", answer.len());
        assert_eq!(answer[..2], question[..2], "another question's answer");
        let answer = Message::from_vec(&answer).expect("a message of ours");
        assert_eq!(answer.metadata.message_type, MessageType::Response);
    }
}
