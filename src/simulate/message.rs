//! What the city sends: messages over one shared buffer, and their count by kind.

use std::ops::Range;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::model::{Input, OrderStatus, TimeMs};

/// What an update is on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oddity {
    /// A plain fix, sent when it was taken.
    None,
    /// Sent after newer ones.
    Late,
    /// The same bytes again.
    Duplicate,
    /// Off by as much as its `accuracy` says.
    Inaccurate,
    /// A jump that no vehicle makes.
    Teleport,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A rider update.
    Update(Oddity),
    /// A version of an order.
    Order(OrderStatus),
    /// An order's removal.
    OrderRemoved,
    /// A version of a fence.
    Fence,
    /// A fence's removal.
    FenceRemoved,
}

impl What {
    /// All of them; the index is [`What::tag`].
    pub const ALL: [Self; 13] = [
        Self::Update(Oddity::None),
        Self::Update(Oddity::Late),
        Self::Update(Oddity::Duplicate),
        Self::Update(Oddity::Inaccurate),
        Self::Update(Oddity::Teleport),
        Self::Order(OrderStatus::Placed),
        Self::Order(OrderStatus::Assigned),
        Self::Order(OrderStatus::PickedUp),
        Self::Order(OrderStatus::Delivered),
        Self::Order(OrderStatus::Cancelled),
        Self::OrderRemoved,
        Self::Fence,
        Self::FenceRemoved,
    ];

    /// A small number of its own, below 13.
    pub fn tag(self) -> usize {
        match self {
            Self::Update(Oddity::None) => 0,
            Self::Update(Oddity::Late) => 1,
            Self::Update(Oddity::Duplicate) => 2,
            Self::Update(Oddity::Inaccurate) => 3,
            Self::Update(Oddity::Teleport) => 4,
            Self::Order(OrderStatus::Placed) => 5,
            Self::Order(OrderStatus::Assigned) => 6,
            Self::Order(OrderStatus::PickedUp) => 7,
            Self::Order(OrderStatus::Delivered) => 8,
            Self::Order(OrderStatus::Cancelled) => 9,
            Self::OrderRemoved => 10,
            Self::Fence => 11,
            Self::FenceRemoved => 12,
        }
    }

    /// The input that it goes to.
    pub fn input(self) -> Input {
        match self {
            Self::Update(_) => Input::Updates,
            Self::Order(_) | Self::OrderRemoved => Input::Orders,
            Self::Fence | Self::FenceRemoved => Input::Geofences,
        }
    }

    /// Its name in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Update(Oddity::None) => "plain",
            Self::Update(Oddity::Late) => "late",
            Self::Update(Oddity::Duplicate) => "duplicate",
            Self::Update(Oddity::Inaccurate) => "inaccurate",
            Self::Update(Oddity::Teleport) => "teleport",
            Self::Order(status) => status.as_str(),
            Self::OrderRemoved | Self::FenceRemoved => "removed",
            Self::Fence => "set",
        }
    }
}

/// How many messages of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; What::ALL.len()]);

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, what: What) {
        self.0[what.tag()] += 1;
    }

    /// Takes all counts from elsewhere.
    pub(super) fn of_each(count: impl Fn(What) -> u64) -> Self {
        Self(What::ALL.map(count))
    }

    /// How many of one kind.
    pub fn of(&self, what: What) -> u64 {
        self.0[what.tag()]
    }

    /// How many for one input.
    pub fn input(&self, input: Input) -> u64 {
        What::ALL
            .into_iter()
            .filter(|what| what.input() == input)
            .map(|what| self.of(what))
            .sum()
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Serialize for Counts {
    /// `{"rider-updates":{"total":…,"plain":…,…},"orders":{…},"geofences":{…}}`
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Of<'a>(&'a Counts, Input);
        impl Serialize for Of<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("total", &self.0.input(self.1))?;
                for what in What::ALL {
                    if what.input() == self.1 {
                        map.serialize_entry(what.name(), &self.0.of(what))?;
                    }
                }
                map.end()
            }
        }
        let mut map = serializer.serialize_map(Some(3))?;
        for input in [Input::Updates, Input::Orders, Input::Geofences] {
            map.serialize_entry(input.topic(), &Of(self, input))?;
        }
        map.end()
    }
}

/// One message; its bytes are in the [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is, which says where it goes.
    pub what: What,
    /// When it is sent, ms since 1970: the Kafka timestamp of a replayed history.
    pub timestamp_ms: TimeMs,
    /// The state that routes an update.
    pub state: Option<&'static str>,
    key: Range<u32>,
    value: Option<Range<u32>>,
}

/// Messages in the order in which they are sent, over one reused buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    messages: Vec<Message>,
    bytes: Vec<u8>,
}

impl Batch {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.bytes.clear();
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// A message's key.
    pub fn key(&self, message: &Message) -> &[u8] {
        &self.bytes[message.key.start as usize..message.key.end as usize]
    }

    /// A message's value; `None` removes.
    pub fn value(&self, message: &Message) -> Option<&[u8]> {
        let range = message.value.as_ref()?;
        Some(&self.bytes[range.start as usize..range.end as usize])
    }

    /// Adds a message whose key and value are written by `key` and `value`; without `value` it
    /// is a removal.
    pub(super) fn push(
        &mut self,
        what: What,
        timestamp_ms: TimeMs,
        state: Option<&'static str>,
        key: impl FnOnce(&mut Vec<u8>),
        value: Option<impl FnOnce(&mut Vec<u8>)>,
    ) {
        let start = self.bytes.len() as u32;
        key(&mut self.bytes);
        let middle = self.bytes.len() as u32;
        let value = value.map(|value| {
            value(&mut self.bytes);
            middle..self.bytes.len() as u32
        });
        self.messages.push(Message {
            what,
            timestamp_ms,
            state,
            key: start..middle,
            value,
        });
    }

    /// Adds the last message once more, as something else.
    pub(super) fn push_again(&mut self, what: What) {
        if let Some(last) = self.messages.last() {
            let again = Message {
                what,
                ..last.clone()
            };
            self.messages.push(again);
        }
    }
}
