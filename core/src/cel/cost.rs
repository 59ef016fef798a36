//! What expressions cost, by upstream's measures: an estimate before they run, and the price of each call while they do.

use super::types::{Decl, Type};
use super::value::{List, Map, Val};
use std::sync::Arc;

const PER_CHARACTER: f64 = 0.1;
const PER_PATTERN_CHARACTER: f64 = 0.25;

/// A size or cost between two bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Range {
    pub(crate) const UNKNOWN: Range = Range { min: 0, max: u64::MAX };
    pub(crate) const ZERO: Range = Range { min: 0, max: 0 };
    pub(crate) const ONE: Range = Range { min: 1, max: 1 };

    pub(crate) fn of(value: u64) -> Range {
        Range { min: value, max: value }
    }

    #[must_use]
    pub(crate) fn plus(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    #[must_use]
    pub(crate) fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    #[must_use]
    pub(crate) fn scaled(self, factor: f64) -> Range {
        Range { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    #[must_use]
    pub(crate) fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts saturate, and a size needs no more than 53 bits"
)]
fn scale(value: u64, factor: f64) -> u64 {
    if value == u64::MAX { u64::MAX } else { (value as f64 * factor).ceil() as u64 }
}

/// How a call is charged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Price {
    One,
    Fixed(u64),
    /// Once through the first argument's text; its size is also the result's.
    Scan,
    /// Once through the first argument's text; before a run taken for one, as upstream does for parsing functions.
    Parse,
    /// Twice through the first argument's text; before a run taken for one.
    ParseTwice,
    /// Through the second argument.
    ScanSecond,
    In,
    Compare,
    AddText,
    AddList,
    Matches,
    Find,
    Contains,
    /// Through all of a list's items.
    Deep,
    DeepText,
    Join,
    Split,
    Replace,
    ToBytes,
    FromBytes,
    Quote,
    Format,
    /// A conversion to text of so many characters at most.
    Show(u64),
    /// A network against an address or network; whether that is text.
    Network {
        whole: bool,
        text: bool,
    },
}

/// The price of a call that was made.
pub(crate) fn price(price: Price, args: &[Val<'_>], result: &Val<'_>) -> u64 {
    let size = |i: usize| args.get(i).map_or(1, Val::size);
    match price {
        Price::One | Price::AddList | Price::Show(_) => 1,
        Price::Fixed(cost) => cost,
        Price::Scan | Price::Parse | Price::ToBytes | Price::FromBytes | Price::Quote | Price::Format => {
            scale(size(0), PER_CHARACTER)
        }
        Price::ScanSecond => scale(size(1), PER_CHARACTER).max(1),
        Price::ParseTwice | Price::Split | Price::Replace => scale(size(0), 2.0 * PER_CHARACTER),
        Price::In => match args.get(1) {
            Some(Val::List(list)) => list.len() as u64,
            _ => 1,
        },
        Price::Compare => scale(size(0).min(size(1)), PER_CHARACTER),
        Price::AddText => scale(size(0).saturating_add(size(1)), PER_CHARACTER),
        Price::Matches | Price::Find => scale(size(0).saturating_add(1), PER_CHARACTER)
            .saturating_mul(scale(size(1), PER_PATTERN_CHARACTER)),
        Price::Contains => scale(size(0), PER_CHARACTER).saturating_mul(scale(size(1), PER_CHARACTER)),
        Price::Deep | Price::DeepText => args.first().map_or(1, traversal),
        Price::Join => scale(result.size(), 2.0 * PER_CHARACTER),
        Price::Network { whole, text } => {
            let network = size(0);
            let base = scale(network + network, PER_CHARACTER);
            let masked = if whole { scale(network, PER_CHARACTER) + 1 } else { 0 };
            base + masked + if text { scale(size(1), PER_CHARACTER) } else { 0 }
        }
    }
}

fn traversal(value: &Val<'_>) -> u64 {
    match value {
        Val::Text(text) => text.len() as u64 / 10,
        Val::Bytes(bytes) => bytes.len() as u64 / 10,
        Val::List(List::Json(list, ..)) => list.iter().map(json_traversal).sum(),
        Val::List(List::Own(list)) => list.iter().map(traversal).sum(),
        Val::Map(Map::Json(map, _)) => map.iter().map(|(k, v)| k.len() as u64 / 10 + json_traversal(v)).sum(),
        Val::Map(Map::Own(entries)) => entries.list.iter().map(|(k, v)| traversal(k) + traversal(v)).sum(),
        _ => 1,
    }
}

fn json_traversal(value: &serde_json::Value) -> u64 {
    match value {
        serde_json::Value::String(text) => text.len() as u64 / 10,
        serde_json::Value::Array(list) => list.iter().map(json_traversal).sum(),
        serde_json::Value::Object(map) => {
            map.iter().map(|(k, v)| k.len() as u64 / 10 + json_traversal(v)).sum()
        }
        _ => 1,
    }
}

/// What is known of an expression before it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimate {
    pub(crate) cost: Range,
    pub(crate) size: Option<Range>,
    /// The declaration that the value comes from, where it is taken from a variable unchanged.
    pub(crate) decl: Option<Arc<Decl>>,
    /// The sizes of keys and values.
    pub(crate) entry: Option<(Range, Range)>,
}

impl Estimate {
    pub(crate) fn sized(cost: Range, size: Range) -> Self {
        Estimate { cost, size: Some(size), ..Estimate::default() }
    }

    /// Fills in the size from the declaration or the type.
    #[must_use]
    pub(crate) fn settled(mut self, ty: &Type) -> Self {
        if self.size.is_none() {
            self.size =
                self.decl.as_ref().filter(|d| d.max != u64::MAX).map(|d| Range { min: 0, max: d.max });
        }
        if self.size.is_none() && is_scalar(ty) {
            self.size = Some(Range::ONE);
        }
        self
    }

    pub(crate) fn size_or_unknown(&self) -> Range {
        self.size.unwrap_or(Range::UNKNOWN)
    }
}

fn is_scalar(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Null
            | Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::Timestamp
            | Type::Duration
            | Type::Type
    )
}

/// The cost of a call beside its arguments, and the size of its result, before it runs.
pub(crate) fn estimate(price: Price, args: &[(&Estimate, &Type)]) -> (Range, Option<Range>) {
    let size = |i: usize| args.get(i).map_or(Range::UNKNOWN, |(e, _)| e.size_or_unknown());
    let text = |i: usize| size(i).scaled(PER_CHARACTER);
    match price {
        Price::One | Price::Parse | Price::ParseTwice => (Range::ONE, None),
        Price::Fixed(cost) => (Range::of(cost), None),
        Price::Scan => (text(0), Some(size(0))),
        Price::ScanSecond => (text(1), None),
        Price::In => (size(1), None),
        Price::Compare => {
            let max = size(0).max.min(size(1).max);
            (Range { min: u64::from(max > 0), max }.scaled(PER_CHARACTER), None)
        }
        Price::AddText => {
            let sum = size(0).plus(size(1));
            (sum.scaled(PER_CHARACTER), Some(sum))
        }
        Price::AddList => (Range::ONE, Some(size(0).plus(size(1)))),
        Price::Matches | Price::Find => {
            let cost = size(0).plus(Range::ONE).scaled(PER_CHARACTER);
            let cost = cost.times(size(1).scaled(PER_PATTERN_CHARACTER));
            let found = matches!(price, Price::Find).then(|| Range { min: 0, max: size(0).max });
            (cost, found)
        }
        Price::Contains => (text(0).times(text(1)), None),
        Price::Deep => (size(0).times(Range::ONE.plus(item_cost(args))), None),
        Price::DeepText => (text(0), None),
        Price::Join => {
            let (count, item) = (size(0), item_size(args));
            let between = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
            let separators = if args.len() > 1 { size(1).times(between) } else { Range::ZERO };
            let sum = count.times(item).plus(separators);
            (sum.scaled(PER_CHARACTER), Some(sum))
        }
        Price::Split => (size(0).scaled(2.0 * PER_CHARACTER), Some(Range { min: 0, max: size(0).max })),
        Price::Replace => (size(0).scaled(2.0 * PER_CHARACTER), Some(replaced(size(0), size(1), size(2)))),
        Price::ToBytes => (text(0), Some(Range { min: size(0).min, max: size(0).max.saturating_mul(4) })),
        Price::FromBytes => (text(0), Some(Range { min: size(0).min / 4, max: size(0).max })),
        Price::Quote => {
            let max = size(0).max.saturating_mul(2).saturating_add(2);
            (text(0), Some(Range { min: size(0).min.saturating_add(2), max }))
        }
        Price::Show(max) => (Range::ONE, Some(Range { min: 0, max })),
        // Upstream takes no part for longer than this either where it cannot tell.
        Price::Format => (text(0), Some(size(0).plus(size(1).times(Range::of(100))))),
        Price::Network { whole, text: is_text } => {
            let bytes = Range { min: 4, max: 16 };
            let mut cost = bytes.plus(bytes).scaled(PER_CHARACTER);
            if whole {
                cost = cost.plus(bytes.scaled(PER_CHARACTER)).plus(Range::ONE);
            }
            (if is_text { cost.plus(text(1)) } else { cost }, None)
        }
    }
}

fn item_of<'t>(args: &[(&'t Estimate, &'t Type)]) -> Option<&'t Arc<Decl>> {
    match args.first() {
        Some((_, Type::List(item))) => Some(item),
        _ => None,
    }
}

fn item_size(args: &[(&Estimate, &Type)]) -> Range {
    let known = args.first().and_then(|(e, _)| {
        let declared = e.decl.as_ref().and_then(|d| match &d.ty {
            Type::List(item) if item.max != u64::MAX => Some(Range { min: 0, max: item.max }),
            _ => None,
        });
        declared.or(e.entry.map(|(_, value)| value))
    });
    known.unwrap_or(Range::UNKNOWN)
}

/// Comparing items of text costs what they are long.
fn item_cost(args: &[(&Estimate, &Type)]) -> Range {
    match item_of(args).map(|d| &d.ty) {
        Some(Type::Text | Type::Bytes) => item_size(args).scaled(PER_CHARACTER),
        _ => Range::ZERO,
    }
}

/// The size of text after replacements: the most from the smallest needle and the largest replacement, the least the other way round.
fn replaced(text: Range, needle: Range, with: Range) -> Range {
    let (mut count, mut kept) = (Range::ZERO, Range::ZERO);
    if needle.min == 0 {
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if with.max <= needle.min {
        kept.max = text.max;
    } else {
        count.max = text.max.div_ceil(needle.min);
    }
    if needle.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if needle.max <= with.min {
        kept.min = text.min;
    } else {
        count.min = text.min.div_ceil(needle.max);
    }
    count.times(with).plus(kept)
}
