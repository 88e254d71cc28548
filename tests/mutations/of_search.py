"""Index, evaluation and service: what could be found in the wrong place, by the wrong model or by somebody who may not ask."""

from __future__ import annotations

from mutation import Mutation

_ACCESS = "tests/unit/serve/access/"
_GATE = (_ACCESS + "test_gatekeeper.py",)
_INDEX = ("tests/unit/retrieval/index/test_index_job.py",)
_RETRIEVAL = "tests/unit/retrieval/"
_SERVE = "tests/unit/serve/"

MUTATIONS = (
    # --- the gallery
    Mutation(
        "a vector of NaN is in a gallery",
        "reid_ray/gallery/items.py",
        "np.abs(np.linalg.norm(vector_ND, axis=1) - 1) <= _NORM_TOLERANCE",
        "~(np.abs(np.linalg.norm(vector_ND, axis=1) - 1) > _NORM_TOLERANCE)",
        _INDEX,
    ),
    Mutation(
        "a gallery of another encoder is searched",
        "reid_ray/retrieval/searched_folder.py",
        "if (made.dim, made.encoder) != (dim, fingerprint):",
        "if made.dim != dim:",
        (_RETRIEVAL + "test_searched_folder.py",),
    ),
    Mutation(
        "the earlier of two items of one id is found",
        "reid_ray/gallery/bulk/adoption.py",
        "            replaced.append(before)\n        newest[id_S[place]] = place\n",
        "            replaced.append(place)\n        newest.setdefault(id_S[place], place)\n",
        ("tests/unit/gallery/test_adoption.py",),
    ),
    Mutation(
        "a vector of NaN passes for a good row",
        "reid_ray/retrieval/embed_stream.py",
        "if not np.isfinite(vector).all():",
        "if np.isinf(vector).all():",
        (_RETRIEVAL + "test_embed_stream.py",),
    ),
    Mutation(
        "unknown people match each other",
        "reid_ray/retrieval/metrics.py",
        " & (person_B != UNKNOWN)",
        "",
        (_RETRIEVAL + "test_metrics.py", _RETRIEVAL + "ranking/test_exact.py"),
    ),
    Mutation(
        "runs of other queries are compared",
        "reid_ray/retrieval/compare/job.py",
        'for column in ("person_id", "relevant", "candidates"):',
        'for column in ("person_id",):',
        (_RETRIEVAL + "evaluate/test_evaluate_job.py",),
    ),
    Mutation(
        "rows of another split are scored",
        "reid_ray/retrieval/embed/features.py",
        'kept = table if split is None else table.filter(pc.fill_null(pc.equal(table["split"], split), False))',
        "kept = table",
        (_RETRIEVAL + "evaluate/test_evaluate_job.py",),
    ),
    Mutation(
        "rows that a gallery leaves out are not counted",
        "reid_ray/retrieval/index/piece_sealing.py",
        '        self.counts.update(reason.partition(":")[0] for reason in why_N[row_M])\n',
        "",
        _INDEX,
    ),
    Mutation(
        "vectors of two encoders are one gallery",
        "reid_ray/retrieval/index/taken_rows.py",
        "!= encoder:",
        "is None:",
        _INDEX,
    ),
    Mutation(
        "queries with other filters are searched together",
        "reid_ray/retrieval/search.py",
        "groups[queries[at].alike()].append(at)",
        "groups[str(queries[at].k)].append(at)",
        (_RETRIEVAL + "test_search.py",),
    ),
    Mutation(
        "hits go to the query before",
        "reid_ray/retrieval/search.py",
        "zip(members, found, strict=True)",
        "zip(members[1:] + members[:1], found, strict=True)",
        (_RETRIEVAL + "test_search.py",),
    ),
    Mutation(
        "a query of NaN is answered",
        "reid_ray/retrieval/clue_sum.py",
        "if not math.isfinite(norm):",
        "if math.isinf(norm):",
        (_RETRIEVAL + "test_search.py",),
    ),
    Mutation(
        "a caption that failed is embedded",
        "reid_ray/retrieval/embed_stream.py",
        '            if status == "failed":',
        '            if status == "fails":',
        (_RETRIEVAL + "test_embed_stream.py",),
    ),
    # --- the service
    Mutation(
        "a token's first bytes are enough",
        "reid_ray/serve/access/tokens/token_file.py",
        'hmac.compare_digest(digest_of(parts[2], entry.salt if entry else "00"), entry.digest if entry else _NOBODY)',
        "entry is not None",
        (_ACCESS + "tokens/test_token_file.py",),
    ),
    Mutation(
        "what came through a proxy is answered without tokens",
        "reid_ray/serve/access/own_machine.py",
        "return _PROXY.fullmatch(name) is not None",
        "return False",
        _GATE,
    ),
    Mutation(
        "another host's name for this machine is answered",
        "reid_ray/serve/access/own_machine.py",
        "return name is not None and is_loopback(name)",
        "return name is not None",
        _GATE,
    ),
    Mutation(
        "a body without a length is read whole",
        "reid_ray/serve/access/body_intake.py",
        "if self.size > self._rule.body_bytes:",
        "if self.size > 1000 * self._rule.body_bytes:",
        _GATE,
    ),
    Mutation(
        "a role may do what the next one may",
        "reid_ray/serve/access/gatekeeper.py",
        "caller.role < rule.least:",
        "caller.role < rule.least - 1:",
        _GATE,
    ),
    Mutation(
        "another site's page may use a session",
        "reid_ray/serve/access/session_cookies.py",
        'return None if site in _OWN_SITES else f"its Sec-Fetch-Site is {site[:20]}"',
        "return None",
        (_ACCESS + "test_session_cookies.py",),
    ),
    Mutation(
        "a changed record whose own hash fits is taken",
        "reid_ray/serve/access/audit/chain_check.py",
        'if record["n"] != link.number + 1 or record["previous"] != link.hash:',
        'if record["n"] != link.number + 1:',
        (_ACCESS + "audit/test_audit_log.py",),
    ),
    Mutation(
        "a record follows one that another process has written since",
        "reid_ray/serve/access/audit/chain_files.py",
        "            self._add([*self._catch_up(), *records])",
        "            self._add(records)",
        (_ACCESS + "audit/test_audit_log.py",),
    ),
    Mutation(
        "an item of a lost share is said to be gone",
        "reid_ray/gallery/shards/joined_view.py",
        "if answer.missing and not is_found:",
        "if answer.missing and False:",
        (_RETRIEVAL + "test_searched_folder.py",),
    ),
    Mutation(
        "what a code says of a vector counts as the vector",
        "reid_ray/gallery/nearest/exact_top.py",
        "shortlists.add(block, rounding + codes.error,",
        "shortlists.add(block, rounding,",
        ("tests/unit/gallery/nearest/test_exact_top.py",),
    ),
    Mutation(
        "the error of codes is half of what it is",
        "reid_ray/gallery/sealed/codes.py",
        "worst**0.5 * (1 + 1e-6)",
        "worst**0.5 * 0.5",
        ("tests/unit/gallery/sealed/test_codes.py",),
    ),
    Mutation(
        "a query's best of equal scores are the last ones",
        "reid_ray/gallery/nearest/exact_top.py",
        'np.argsort(-score_M[start:end], kind="mergesort")[:k]',
        'np.argsort(score_M[start:end], kind="mergesort")[::-1][:k]',
        ("tests/unit/gallery/nearest/test_exact_top.py",),
    ),
    Mutation(
        "a batch with fewer answers than questions is answered",
        "reid_ray/serve/operations/micro_batches.py",
        "            if len(answers) != len(requests):",
        "            if len(answers) > len(requests):",
        (_SERVE + "test_micro_batches.py",),
    ),
    # --- pictures of questions, explanations, whatever is asked
    Mutation(
        "a bomb is decoded among small pictures",
        "reid_ray/retrieval/query_pictures.py",
        "        if not large:",
        "        if True:",
        (_RETRIEVAL + "test_query_pictures.py",),
    ),
    Mutation(
        "a word's effect is that of the words before it",
        "reid_ray/retrieval/explain/text_words.py",
        "before, after = text[: word.start].rstrip(), text[word.end :].lstrip()",
        'before, after = "", text[word.end :].lstrip()',
        (_RETRIEVAL + "explain/test_score_explanation.py",),
    ),
    Mutation(
        "a heat map is that of another place",
        "reid_ray/retrieval/explain/picture_occlusion.py",
        "        copy[patches_RC[row_H][:, column_W]] = mean",
        "        copy[patches_RC[::-1][row_H][:, column_W]] = mean",
        (_RETRIEVAL + "explain/test_score_explanation.py",),
    ),
    Mutation(
        "what no future can hold leaves a batch waiting",
        "reid_ray/serve/operations/micro_batches.py",
        "            if isinstance(error, Exception) and not isinstance(error, StopIteration | TimeoutError):",
        "            if isinstance(error, Exception):",
        (_SERVE + "test_after_failures.py",),
    ),
    Mutation(
        "a head of a request grows without an end",
        "reid_ray/serve/process/strict_http.py",
        "if self._in_head and self._head_bytes > MOST_HEAD_BYTES",
        "if False and self._head_bytes > MOST_HEAD_BYTES",
        (_SERVE + "test_no_http.py",),
    ),
    Mutation(
        "a refused request's body is taken for the next one",
        "reid_ray/serve/process/strict_http.py",
        "        if not self._is_answered:\n            super().on_message_complete()\n",
        "        super().on_message_complete()\n",
        (_SERVE + "api/test_load_shedding.py",),
    ),
    Mutation(
        "an early refusal overtakes the answer before it",
        "reid_ray/serve/process/strict_http.py",
        "if answering is None or not self._has_answered():",
        "if answering is None:",
        (_SERVE + "api/test_load_shedding.py",),
    ),
    Mutation(
        "a hit that was deleted while it was searched for is shown",
        "reid_ray/gallery/nearest/hits.py",
        "        if self.wish.threshold is not None or self.wish.one_per is not None:\n            return False",
        "        if self.wish.threshold is not None or self.wish.one_per is not None:\n            return False\n        return True",
        ("tests/unit/gallery/nearest/test_hits.py",),
    ),
    Mutation(
        "texts of a part of a column are those of its beginning",
        "reid_ray/gallery/row_reader.py",
        "len(array) + 1, 4 * array.offset)",
        "len(array) + 1)",
        ("tests/unit/gallery/test_row_reader.py",),
    ),
    Mutation(
        "a filter's value that its column cannot hold is a fault",
        "reid_ray/gallery/sealed/postings.py",
        "    except (OverflowError, ValueError):  # infinity",
        "    except ZeroDivisionError:  # infinity",
        ("tests/unit/gallery/sealed/test_filter_values.py",),
    ),
)
