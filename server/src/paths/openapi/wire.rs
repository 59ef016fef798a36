//! Writing protobuf: fields of the few types that the OpenAPI message needs.

/// A message under construction.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A text; an empty one is the default and left out.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// One text of several, also where it is empty.
    pub(super) fn item(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A flag inside a choice, where `false` says something.
    pub(super) fn choice(&mut self, field: u32, value: bool) {
        self.tag(field, 0);
        self.varint(u64::from(value));
    }

    pub(super) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.choice(field, true);
        }
    }

    pub(super) fn integer(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.tag(field, 0);
            // Negative numbers take ten bytes, as two's complement.
            self.varint(value as u64);
        }
    }

    pub(super) fn double(&mut self, field: u32, value: f64) {
        if value != 0.0 {
            self.tag(field, 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_wire_has_them() {
        let check = |fill: fn(&mut Message), want: &[u8]| {
            let mut message = Message::default();
            fill(&mut message);
            assert_eq!(message.into_bytes(), want);
        };
        check(|m| m.integer(1, 150), &[0x08, 0x96, 0x01]);
        check(|m| m.integer(1, 0), &[]);
        check(|m| m.integer(1, -1), &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        check(|m| m.text(2, "testing"), b"\x12\x07testing");
        check(|m| m.item(2, ""), &[0x12, 0]);
        check(|m| m.choice(2, false), &[0x10, 0]);
        check(|m| m.double(11, 1.0), &[0x59, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        check(|m| m.message(3, |m| m.integer(1, 150)), &[0x1a, 3, 8, 0x96, 1]);
        check(|m| m.flag(31, true), &[0xf8, 0x01, 1]);
    }
}
