//! What a client saw, the same for every runner.

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// HTTP status.
    pub status: u16,
    /// Headers with lower-case names.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
    /// gRPC status.
    pub grpc_status: Option<u32>,
}

// === impl Seen ===

impl Seen {
    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// What a gRPC client makes of a local reply: Envoy sends status 200 and the rest in headers.
    pub fn for_grpc(mut self, grpc_status: u32) -> Self {
        self.status = 200;
        self.grpc_status = Some(grpc_status);
        let message = std::mem::take(&mut self.body);
        self.headers.push(("grpc-message".to_owned(), message));
        self
    }
}
