//! Arguments from modules, and results in their memory, by the canonical ABI of the component model.

use std::borrow::Cow;

use wasmtime::{AsContextMut, Caller, Trap, TypedFunc};

use crate::call::Call;
use crate::call::state::{Data, State};
use crate::failure::HostError;
use crate::guest::{Guest, Realloc};

/// The caller of a host function.
pub(crate) type ModuleContext<'a> = Caller<'a, Data>;

/// The module that makes the call.
pub(crate) fn of(state: &State) -> wasmtime::Result<&Guest> {
    // There is no guest while the start function runs. The trap is the one of a component, whose start function would call host functions with
    // pointers through a table that is not filled yet.
    state
        .guest
        .as_ref()
        .ok_or_else(|| Trap::IndirectCallToNull.into())
}

/// Notes that the host calls a function of the module.
pub(crate) fn enter(state: &mut State) {
    if let Some(guest) = &mut state.guest {
        guest.is_inside = true;
    }
}

/// Ends what [`enter`] began.
pub(crate) fn leave(state: &mut State) {
    if let Some(guest) = &mut state.guest {
        guest.is_inside = false;
    }
}

/// Returns an error that ends the call if the module must not call the host now, or if the deadline has passed. Host functions check the
/// deadline, because the runtime checks the epoch only in loops and at function entries of the policy.
pub(crate) fn check(state: &State) -> wasmtime::Result<()> {
    state.call.in_time()?;
    match &state.guest {
        Some(guest) if guest.is_inside => Err(Trap::CannotLeaveComponent.into()),
        _ => Ok(()),
    }
}

/// The memory of the module, to read, and the call.
pub(crate) fn open<'a>(
    caller: &'a mut Caller<'_, Data>,
) -> wasmtime::Result<(&'a [u8], &'a mut Call)> {
    check(caller.data())?;
    let memory = of(caller.data())?.memory;
    let (bytes, state) = memory.data_and_store_mut(caller);
    Ok((bytes, &mut state.call))
}

/// A range of the module's memory, to write, and the call. All writes of the host go through this function, because it marks their cards.
fn place<'a>(
    caller: &'a mut Caller<'_, Data>,
    at: u32,
    size: usize,
    stray: HostError,
) -> wasmtime::Result<(&'a mut [u8], &'a mut Call)> {
    let memory = of(caller.data())?.memory;
    let (bytes, state) = memory.data_and_store_mut(caller);
    let at = at as usize;
    let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..size));
    let place = place.ok_or(stray)?;
    if let Some(guest) = &mut state.guest {
        guest.cards.mark(at, size);
    }
    Ok((place, &mut state.call))
}

/// Reads a text argument.
pub(crate) fn text(memory: &[u8], at: u32, length: u32, limit: usize) -> wasmtime::Result<&str> {
    let bytes = memory
        .get(at as usize..)
        .and_then(|rest| rest.get(..length as usize))
        .ok_or(HostError::StrayText)?;
    if bytes.len() > limit {
        return Err(HostError::TooMuch.into());
    }
    Ok(std::str::from_utf8(bytes).map_err(|_| HostError::NotUtf8)?)
}

/// Reads the parts of an argument out of the memory of the module, together no more bytes than one call may pass.
pub(crate) struct Parts<'m> {
    memory: &'m [u8],
    left: usize,
}

impl<'m> Parts<'m> {
    /// At most `limit` bytes are read.
    pub(crate) fn of(memory: &'m [u8], limit: usize) -> Self {
        Self {
            memory,
            left: limit,
        }
    }

    /// Reads a text.
    pub(crate) fn text(&mut self, at: u32, length: u32) -> wasmtime::Result<&'m str> {
        let text = text(self.memory, at, length, self.left)?;
        self.left -= text.len();
        Ok(text)
    }

    /// Reads a list of `count` elements of `SIZE` bytes.
    pub(crate) fn list<const SIZE: usize>(
        &mut self,
        at: u32,
        count: u32,
        align: u32,
    ) -> wasmtime::Result<&'m [[u8; SIZE]]> {
        if !at.is_multiple_of(align) {
            return Err(HostError::OddPointer.into());
        }
        let size = (count as usize).saturating_mul(SIZE);
        let rest = self.memory.get(at as usize..);
        let raw = rest.and_then(|rest| rest.get(..size));
        let raw = raw.ok_or(HostError::StrayList)?;
        self.spend(size)?;
        Ok(raw.as_chunks().0)
    }

    /// Counts bytes as if they had been read.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), HostError> {
        self.left = self.left.checked_sub(bytes).ok_or(HostError::TooMuch)?;
        Ok(())
    }
}

/// Copies a text into the memory of the module and returns its address and length.
pub(crate) fn give(
    caller: &mut Caller<'_, Data>,
    text: impl Fn(&Call) -> Cow<'_, str>,
) -> wasmtime::Result<(u32, u32)> {
    // `allocate` runs code of the module, so a borrowed text is read again afterwards instead of being copied before.
    let (length, owned) = match text(&caller.data().call) {
        Cow::Borrowed(text) => (text.len(), None),
        Cow::Owned(text) => (text.len(), Some(text)),
    };
    let at = allocate(caller, 1, length)?;
    let (place, call) = place(caller, at, length, HostError::StrayMemory)?;
    let text = match &owned {
        Some(text) => Cow::Borrowed(&**text),
        None => text(call),
    };
    // The text has not changed meanwhile, so its length is the same.
    let text = text
        .as_bytes()
        .get(..length)
        .ok_or(HostError::StrayMemory)?;
    place.copy_from_slice(text);
    Ok((at, length as u32))
}

/// Allocates memory of the module with its `cabi_realloc`.
pub(crate) fn allocate(
    caller: &mut Caller<'_, Data>,
    align: u32,
    size: usize,
) -> wasmtime::Result<u32> {
    let size = u32::try_from(size).map_err(|_| HostError::TooMuch)?;
    let realloc = take_realloc(caller)?;
    let allocated = realloc.call(&mut *caller, (0, 0, align, size));
    if let Some(guest) = &mut caller.data_mut().guest {
        guest.realloc = Realloc::Typed(realloc);
        guest.is_inside = false;
    }
    let at = allocated?;
    if at % align != 0 {
        return Err(HostError::OddMemory.into());
    }
    let has = of(caller.data())?.memory.data_size(&*caller);
    match (at as usize).checked_add(size as usize) {
        Some(end) if end <= has => Ok(at),
        _ => Err(HostError::StrayMemory.into()),
    }
}

/// Writes 32-bit values to the result area at `at`.
pub(crate) fn write_words(
    caller: &mut Caller<'_, Data>,
    at: u32,
    words: &[u32],
) -> wasmtime::Result<()> {
    let area = area(caller, at, 4, 4 * words.len())?;
    for (place, word) in area.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    Ok(())
}

/// Writes a value to the result area at `at`.
pub(crate) fn write_bytes(
    caller: &mut Caller<'_, Data>,
    at: u32,
    align: u32,
    value: &[u8],
) -> wasmtime::Result<()> {
    area(caller, at, align, value.len())?.copy_from_slice(value);
    Ok(())
}

/// Writes an optional number of eight bytes.
pub(crate) fn write_wide(
    caller: &mut ModuleContext<'_>,
    result: u32,
    is_there: bool,
    value: [u8; 8],
) -> wasmtime::Result<()> {
    let mut bytes = [0; 16];
    bytes[0] = is_there.into();
    bytes[8..].copy_from_slice(&value);
    write_bytes(caller, result, 8, &bytes)
}

/// The result area at `at`.
fn area<'a>(
    caller: &'a mut Caller<'_, Data>,
    at: u32,
    align: u32,
    size: usize,
) -> wasmtime::Result<&'a mut [u8]> {
    if !at.is_multiple_of(align) {
        return Err(HostError::OddPointer.into());
    }
    Ok(place(caller, at, size, HostError::StrayPointer)?.0)
}

/// Copies bytes to [allocated](allocate) memory.
pub(crate) fn fill(caller: &mut Caller<'_, Data>, at: u32, bytes: &[u8]) -> wasmtime::Result<()> {
    let (place, _) = place(caller, at, bytes.len(), HostError::StrayMemory)?;
    place.copy_from_slice(bytes);
    Ok(())
}

fn take_realloc(
    caller: &mut Caller<'_, Data>,
) -> wasmtime::Result<TypedFunc<(u32, u32, u32, u32), u32>> {
    let guest = caller.data_mut().guest.as_mut();
    let guest = guest.ok_or(Trap::IndirectCallToNull)?;
    guest.is_inside = true;
    match std::mem::replace(&mut guest.realloc, Realloc::Missing) {
        Realloc::Typed(realloc) => Ok(realloc),
        Realloc::Untyped(realloc) => realloc.typed(caller.as_context_mut()),
        Realloc::Missing => Err(HostError::NoMemory.into()),
    }
}

/// Copies a text that is not part of the call into the memory of the module.
pub(crate) fn give_copy(
    caller: &mut ModuleContext<'_>,
    value: &str,
) -> wasmtime::Result<(u32, u32)> {
    let at = allocate(caller, 1, value.len())?;
    check(caller.data())?;
    fill(caller, at, value.as_bytes())?;
    Ok((at, value.len() as u32))
}

/// Copies an optional text into the memory of the module, and writes it to the result area at `result`.
pub(crate) fn give_optional(
    caller: &mut ModuleContext<'_>,
    result: u32,
    value: Option<&str>,
) -> wasmtime::Result<()> {
    let Some(value) = value else {
        return write_words(caller, result, &[0, 0, 0]);
    };
    let (at, length) = give_copy(caller, value)?;
    write_words(caller, result, &[1, at, length])
}

/// Copies a list of texts into the memory of the module and returns its address and length.
pub(crate) fn give_list(
    caller: &mut ModuleContext<'_>,
    texts: &[String],
) -> wasmtime::Result<[u32; 2]> {
    let list = allocate(caller, 4, 8 * texts.len())?;
    for (place, text) in (list..).step_by(8).zip(texts) {
        let (at, length) = give_copy(caller, text)?;
        write_words(caller, place, &[at, length])?;
    }
    Ok([list, texts.len() as u32])
}

/// Reads an optional text argument: discriminant, address and length.
pub(crate) fn optional(
    memory: &[u8],
    [case, at, length]: [u32; 3],
    limit: usize,
) -> wasmtime::Result<Option<&str>> {
    match case {
        0 => Ok(None),
        1 => text(memory, at, length, limit).map(Some),
        case => Err(HostError::Level(case).into()),
    }
}

/// Calls `find` with a text argument.
pub(crate) fn by_key<T>(
    caller: &mut ModuleContext<'_>,
    at: u32,
    length: u32,
    find: impl FnOnce(&mut Call, &str) -> T,
) -> wasmtime::Result<T> {
    let (memory, call) = open(caller)?;
    let key = text(memory, at, length, call.host_call_bytes())?;
    Ok(find(call, key))
}
