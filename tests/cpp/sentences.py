"""Text in many languages and scripts, for tokenizers to be made from and tried on."""

SENTENCES = {
    "Amharic": "ድመቷ በምንጣፉ ላይ ተኝታለች፤ ከጎኗ ቀይ ኳስ አለ። በመስኮቱ በኩል ሁለት ዛፎች ይታያሉ።",
    "Arabic": "تنام القطة على السجادة وبجانبها كرة حمراء. كم كرسيًّا ترى في الصورة؟ أرى ثلاثة كراسٍ، "
    "وواحد منها مكسور.",
    "Armenian": "Կատուն քնած է գորգի վրա, իսկ կողքին կարմիր գնդակ է։ Քանի՞ աթոռ կա նկարում։",
    "Bengali": "বিড়ালটি মাদুরের উপর ঘুমাচ্ছে, আর পাশে একটি লাল বল। ছবিতে কয়টি চেয়ার আছে?",
    "Bulgarian": "Котката спи върху килима, а до нея има червена топка. Колко стола се виждат на снимката?",
    "Burmese": "ကြောင်သည် ဖျာပေါ်တွင် အိပ်နေသည်။ ဘေးတွင် အနီရောင် ဘောလုံးတစ်လုံး ရှိသည်။",
    "Cherokee": "ᏪᏌ ᎦᎵᎭ ᎠᏰᏍᏙᎢ ᎦᏚᎢ, ᎩᎦᎨ ᎠᎳᏍᎦᎶᏗ ᎾᎥᎢ.",
    "Chinese, simplified": "猫睡在垫子上，旁边有一个红色的球。图片里一共有几把椅子？我看到三把，其中一把坏了。",
    "Chinese, traditional": "貓睡在墊子上，旁邊有一顆紅色的球。請描述這張圖片裡的東西，並數一數有幾張椅子。",
    "Czech": "Kočka spí na rohoži a vedle ní leží červený míč. Kolik židlí je na obrázku? Příliš "
    "žluťoučký stůl.",
    "Dutch": "De kat slaapt op de mat en daarnaast ligt een rode bal. Hoeveel stoelen zie je? Ik zie er "
    "drie, één is stuk.",
    "English": "The cat's asleep on the mat, and there's a red ball beside it. How many chairs do you "
    "see? I'd say three, but one isn't whole; they've been mended. We'll count again, he'll "
    "help, and you're welcome.",
    "Finnish": "Kissa nukkuu matolla, ja sen vieressä on punainen pallo. Montako tuolia kuvassa näkyy?",
    "French": "Le chat dort sur le tapis, à côté d’une balle rouge. Combien de chaises voyez-vous ? Où "
    "est l’œuf, là-bas ?",
    "Georgian": "კატას ხალიჩაზე სძინავს, მის გვერდით წითელი ბურთია. რამდენი სკამია სურათზე?",
    "German": "Die Katze schläft auf der Matte, daneben liegt ein roter Ball. Wie viele Stühle siehst "
    "du? Größe: 3 Füße.",
    "Greek": "Η γάτα κοιμάται στο χαλάκι, και δίπλα της υπάρχει μια κόκκινη μπάλα. Πόσες καρέκλες βλέπεις;",
    "Gujarati": "બિલાડી સાદડી પર સૂતી છે, અને બાજુમાં લાલ દડો છે. ચિત્રમાં કેટલી ખુરશીઓ છે?",
    "Hebrew": "החתול ישן על השטיח, ולידו כדור אדום. כמה כיסאות רואים בתמונה? שָׁלוֹם לְכֻלָּם.",
    "Hindi": "बिल्ली चटाई पर सो रही है, और पास में एक लाल गेंद है। चित्र में कितनी कुर्सियाँ हैं? मुझे तीन दिखती हैं।",
    "Hungarian": "A macska a szőnyegen alszik, mellette egy piros labda. Hány széket látsz a képen? "
    "Árvíztűrő tükör.",
    "Icelandic": "Kötturinn sefur á mottunni og við hliðina er rauður bolti. Hvað eru margir stólar á "
    "myndinni? Það er þarna.",
    "Inuktitut": "ᐳᓯ ᓯᓂᒃᑐᖅ ᐊᓪᓕᕐᒥ, ᐊᐅᐸᖅᑐᖅ ᐊᖅᓴᖅ ᓴᓂᐊᓃᑦᑐᖅ.",
    "Italian": "Il gatto dorme sul tappeto e accanto c'è una palla rossa. Quante sedie ci sono "
    "nell'immagine? Perché così?",
    "Japanese": "猫がマットの上で眠っていて、そばに赤いボールがあります。"
    "写真には椅子がいくつ写っていますか？ﾊﾝｶｸも。",
    "Kannada": "ಬೆಕ್ಕು ಚಾಪೆಯ ಮೇಲೆ ಮಲಗಿದೆ, ಪಕ್ಕದಲ್ಲಿ ಕೆಂಪು ಚೆಂಡು ಇದೆ. ಚಿತ್ರದಲ್ಲಿ ಎಷ್ಟು ಕುರ್ಚಿಗಳಿವೆ?",
    "Khmer": "ឆ្មាកំពុងដេកលើកន្ទេល ហើយមានបាល់ពណ៌ក្រហមមួយនៅក្បែរវា។ តើមានកៅអីប៉ុន្មាន?",
    "Korean": "고양이가 매트 위에서 자고 있고 옆에는 빨간 공이 있습니다. 사진에 의자가 몇 개 보이나요? "
    "세 개요.",
    "Lao": "ແມວນອນຢູ່ເທິງສາດ ແລະມີລູກບານສີແດງຢູ່ຂ້າງໆ. ມີຕັ່ງຈັກໜ່ວຍ?",
    "Malayalam": "പൂച്ച പായയിൽ ഉറങ്ങുന്നു, അരികിൽ ഒരു ചുവന്ന പന്തുണ്ട്. ചിത്രത്തിൽ എത്ര കസേരകളുണ്ട്?",
    "Mongolian": "Муур дэвсгэр дээр унтаж байна, хажууд нь улаан бөмбөг бий. ᠮᠤᠤᠷ ᠤᠨᠲᠠᠵᠤ ᠪᠠᠶᠢᠨ᠎ᠠ᠃",
    "Persian": "گربه روی فرش خوابیده و کنارش یک توپ قرمز است. چند صندلی در عکس می‌بینید؟ ۱۲۳ تا.",
    "Polish": "Kot śpi na macie, a obok leży czerwona piłka. Ile krzeseł widać na zdjęciu? Zażółć gęślą "
    "jaźń.",
    "Portuguese": "O gato dorme no tapete e ao lado há uma bola vermelha. Quantas cadeiras você vê? Não são "
    "três, são duas.",
    "Punjabi": "ਬਿੱਲੀ ਚਟਾਈ ਉੱਤੇ ਸੁੱਤੀ ਹੈ, ਅਤੇ ਕੋਲ ਇੱਕ ਲਾਲ ਗੇਂਦ ਹੈ।",
    "Russian": "Кошка спит на коврике, а рядом лежит красный мяч. Сколько стульев на картинке? Ёлка стоит "
    "у окна.",
    "Sinhala": "පූසා පැදුර උඩ නිදාගෙන ඉන්නවා, ළඟ රතු බෝලයක් තියෙනවා.",
    "Spanish": "El gato duerme en la alfombra y al lado hay una pelota roja. ¿Cuántas sillas ves en la "
    "imagen? ¡Mañana más!",
    "Swedish": "Katten sover på mattan och bredvid ligger en röd boll. Hur många stolar ser du på bilden?",
    "Tamil": "பூனை பாயில் தூங்குகிறது, அருகில் ஒரு சிவப்பு பந்து உள்ளது. படத்தில் எத்தனை நாற்காலிகள் உள்ளன?",
    "Telugu": "పిల్లి చాప మీద నిద్రపోతోంది, పక్కన ఎర్ర బంతి ఉంది. చిత్రంలో ఎన్ని కుర్చీలు ఉన్నాయి?",
    "Thai": "แมวนอนหลับอยู่บนเสื่อ ข้างๆ มีลูกบอลสีแดง ในภาพมีเก้าอี้กี่ตัว เห็นสามตัว แต่ตัวหนึ่งหัก",
    "Tibetan": "ཞི་མི་གདན་སྟེང་ལ་ཉལ་འདུག འགྲམ་དུ་སྤོ་ལོ་དམར་པོ་ཞིག་འདུག",
    "Turkish": "Kedi paspasın üzerinde uyuyor, yanında kırmızı bir top var. Resimde kaç sandalye var? İki "
    "ışık görüyorum.",
    "Ukrainian": "Кіт спить на килимку, а поруч лежить червоний м'яч. Скільки стільців на малюнку? Їх троє, "
    "ґанок поруч.",
    "Urdu": "بلی چٹائی پر سو رہی ہے اور اس کے پاس ایک سرخ گیند ہے۔ تصویر میں کتنی کرسیاں ہیں؟",
    "Vietnamese": "Con mèo ngủ trên chiếu, bên cạnh có một quả bóng đỏ. Bạn thấy bao nhiêu cái ghế trong bức "
    "ảnh?",
    "Yoruba": "Ológbò náà ń sùn lórí ẹní, bọ́ọ̀lù pupa kan sì wà lẹ́gbẹ̀ẹ́ rẹ̀. Àga mélòó ni o rí?",
    "numbers": "3.14159, 2,928 tokens, 1e-5, 0x7F, ٣٤٥, ४५६, ⅓ of Ⅻ, x² + y³ = ①②, 10:45, 1/2, +41 22 767 "
    "61 11, 1234567890123",
    "code": "for (std::size_t i = 0; i < tiles.size(); ++i) {\n    total += tiles[i]->count() * 3; // "
    "all of them\n}\ndef area(box: dict[str, float]) -> float:\n\treturn box['w'] * "
    "box[\"h\"]  # px²\n\n\n<p class='x'>&amp;</p>\r\n",
    "emoji": "👩‍👩‍👧‍👦 and 👍🏽 or 🏳️‍🌈, 🇨🇭🇯🇵, ❤️‍🔥, 1️⃣, 🧑🏿‍🚀!! 😀😀😀 ☺︎",
    "mathematics": "∀x ∈ ℝ: ⌈x⌉ ≥ x, ∑ᵢ aᵢ·bᵢ ≠ ∫₀^∞ e^{−t²} dt, 𝕬𝖇𝖈 𝟙𝟚𝟛",
    "punctuation": "“Quoted”, ‘single’, «guillemets»… — – ‑ ¿what? ¡yes! 50% @home #tag $5 €6 ~/.bashrc "
    "`code` *bold* [a](b) ''' \"\"\"",
}
