//! Running comprehensions. Each step is charged as upstream's general loop would be.

use super::ast::FoldKind;
use super::fault::Fault;
use super::program::FoldCode;
use super::run::{Evaluation, R};
use super::value::{Entries, Map, Val};
use std::sync::Arc;

impl<'a> Evaluation<'a> {
    pub(crate) fn fold(&mut self, fold: &'a FoldCode) -> R<'a> {
        let range = self.eval(&fold.range)?;
        match &range {
            Val::List(list) => {
                let list = list.clone();
                let items = (0..list.len()).filter_map(move |i| {
                    let item = list.get(i)?;
                    Some((Val::Int(i64::try_from(i).unwrap_or(i64::MAX)), item))
                });
                self.fold_over(fold, items, true)
            }
            Val::Map(map) => {
                let map = map.clone();
                let entries = map.keys().into_iter().filter_map(move |k| {
                    let value = map.get(&k)?;
                    Some((k, value))
                });
                self.fold_over(fold, entries, false)
            }
            _ => Err(Fault::no_overload()),
        }
    }

    fn fold_over(
        &mut self,
        fold: &'a FoldCode,
        items: impl Iterator<Item = (Val<'a>, Val<'a>)>,
        list: bool,
    ) -> R<'a> {
        match fold.kind {
            FoldKind::All => self.quantify(fold, items, list, false),
            FoldKind::Exists => self.quantify(fold, items, list, true),
            FoldKind::ExistsOne => self.exists_one(fold, items, list),
            FoldKind::Map | FoldKind::Filter => self.collect(fold, items, list),
            FoldKind::TransformMap | FoldKind::TransformMapEntry => self.collect_map(fold, items),
        }
    }

    fn enter(&mut self, fold: &FoldCode, key: Val<'a>, value: Val<'a>, list: bool) {
        if fold.two {
            self.assign(fold.slot, Ok(key));
            self.assign(fold.slot + 1, Ok(value));
        } else {
            self.assign(fold.slot, Ok(if list { value } else { key }));
        }
    }

    fn quantify(
        &mut self,
        fold: &'a FoldCode,
        items: impl Iterator<Item = (Val<'a>, Val<'a>)>,
        list: bool,
        decisive: bool,
    ) -> R<'a> {
        let mut failed = None;
        for (key, value) in items {
            // The loop's condition and the accumulator of its step.
            self.charge(if decisive { 4 } else { 3 })?;
            self.enter(fold, key, value, list);
            match self.eval(&fold.body) {
                Ok(Val::Bool(value)) if value == decisive => {
                    self.charge(1)?;
                    return Ok(Val::Bool(decisive));
                }
                Ok(Val::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Fault::no_overload())),
                Err(fault) if fault.is_final() => return Err(fault),
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        self.charge(1)?;
        failed.map_or(Ok(Val::Bool(!decisive)), Err)
    }

    fn holds(&mut self, code: &'a super::program::Code) -> Result<bool, Fault> {
        match self.eval(code)? {
            Val::Bool(value) => Ok(value),
            _ => Err(Fault::no_overload()),
        }
    }

    fn exists_one(
        &mut self,
        fold: &'a FoldCode,
        items: impl Iterator<Item = (Val<'a>, Val<'a>)>,
        list: bool,
    ) -> R<'a> {
        let mut count = 0_usize;
        for (key, value) in items {
            self.enter(fold, key, value, list);
            let holds = self.holds(&fold.body)?;
            self.charge(if holds { 2 } else { 1 })?;
            count += usize::from(holds);
        }
        self.charge(2)?;
        Ok(Val::Bool(count == 1))
    }

    fn collect(
        &mut self,
        fold: &'a FoldCode,
        items: impl Iterator<Item = (Val<'a>, Val<'a>)>,
        list: bool,
    ) -> R<'a> {
        let mut out = Vec::new();
        for (key, value) in items {
            self.enter(fold, key, value, list);
            if let Some(filter) = &fold.filter
                && !self.holds(filter)?
            {
                self.charge(1)?;
                continue;
            }
            if fold.kind == FoldKind::Filter {
                let item = self.locals.get(fold.slot).cloned().unwrap_or(Ok(Val::Null))?;
                if self.holds(&fold.body)? {
                    self.charge(13)?;
                    out.push(item);
                } else {
                    self.charge(1)?;
                }
            } else {
                out.push(self.eval(&fold.body)?);
                self.charge(12)?;
            }
        }
        self.charge(1)?;
        Ok(Val::list(out))
    }

    fn collect_map(&mut self, fold: &'a FoldCode, items: impl Iterator<Item = (Val<'a>, Val<'a>)>) -> R<'a> {
        let mut out = Entries::default();
        for (key, value) in items {
            self.enter(fold, key.clone(), value, false);
            if let Some(filter) = &fold.filter
                && !self.holds(filter)?
            {
                self.charge(1)?;
                continue;
            }
            let made = self.eval(&fold.body)?;
            self.charge(3)?;
            if fold.kind == FoldKind::TransformMap {
                insert(&mut out, key, made)?;
            } else {
                let Val::Map(made) = made else { return Err(Fault::no_overload()) };
                for key in made.keys() {
                    let value = made.get(&key).unwrap_or(Val::Null);
                    insert(&mut out, key, value)?;
                }
            }
        }
        self.charge(1)?;
        Ok(Val::Map(Map::Own(Arc::new(out))))
    }
}

fn insert<'a>(out: &mut Entries<'a>, key: Val<'a>, value: Val<'a>) -> Result<(), Fault> {
    let shown = super::ops::shown(&key);
    if out.insert(key, value) {
        Ok(())
    } else {
        Err(Fault::new(format!("insert failed: key {shown} already exists")))
    }
}
