//! Strings as small numbers: label keys and values, resource and node names repeat over thousands of nodes and pods.

use rustc_hash::FxHashMap;
use smol_str::SmolStr;

/// A string of one [`Interner`]; equal symbols are equal strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(u32);

impl Symbol {
    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Strings that plugins ask for, whether or not any object has them.
const KNOWN: [&str; 3] = ["", "kubernetes.io/hostname", "topology.kubernetes.io/zone"];

/// Gives each distinct string a number. It never forgets one: the vocabulary of a cluster is small.
#[derive(Debug)]
pub struct Interner {
    symbols: FxHashMap<SmolStr, Symbol>,
    texts: Vec<SmolStr>,
}

impl Default for Interner {
    fn default() -> Self {
        let mut interner = Interner { symbols: FxHashMap::default(), texts: Vec::new() };
        for text in KNOWN {
            interner.intern(text);
        }
        interner
    }
}

impl Interner {
    /// The symbol of a string, made where there is none yet.
    pub fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.symbols.get(text) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text = SmolStr::new(text);
        self.texts.push(text.clone());
        self.symbols.insert(text, symbol);
        symbol
    }

    /// The symbol of a string that was interned before.
    pub fn get(&self, text: &str) -> Option<Symbol> {
        self.symbols.get(text).copied()
    }

    /// The string of a symbol.
    pub fn text(&self, symbol: Symbol) -> &SmolStr {
        &self.texts[symbol.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_a_symbol() {
        let mut interner = Interner::default();
        let (a, b) = (interner.intern("a"), interner.intern("b"));
        assert_eq!(interner.intern("a"), a);
        assert_ne!(a, b);
        assert_eq!(interner.text(b), "b");
        assert_eq!(interner.get("c"), None);
    }
}
